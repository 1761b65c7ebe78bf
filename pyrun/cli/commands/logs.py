"""`pyrun logs`: what pods wrote, searched and followed."""

from __future__ import annotations

import os
import time
from dataclasses import replace

from pyrun.cli.output import compact
from pyrun.errors import InvalidArgument, NotFound
from pyrun.logs.around import Around, Near, Shown
from pyrun.logs.entry import Rule
from pyrun.logs.files import EVERYTHING
from pyrun.logs.line import SECOND, Line, parse_time
from pyrun.logs.query import FOREVER, Query, Where, parse_pattern, parse_selector, parse_words, selects
from pyrun.logs.read import read, read_near, tail, tail_entries
from pyrun.logs.show import as_text, as_value
from pyrun.logs.tree import POD_LOGS, Container, collect_containers, default_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options
    from pyrun.logs.files import Ends

    Show = Callable[[Container, Shown], None]

PATIENCE_S = 10.0
# Of what was written before, when nothing says how much.
BEFORE_FOLLOWING = 10
# Entries of context.
MOST_NEAR = 1000


def run(g: Globals, o: Options) -> int:
    query, where, root = _query(o), _where(o), o.dir or POD_LOGS
    near = _near(o)
    store = os.path.abspath(o.store) if o.store else default_store(root)
    if o.previous and o.follow:
        raise InvalidArgument("--previous: what has ended can't be followed", hint="leave out --follow or --previous")
    if o.follow:
        return _follow(root, store, where, query, near, o)
    containers = _chosen(root, store, where)
    if not containers:
        raise NotFound(f"{root}: no container's logs are there that fit", hint="pyrun logs without --pod … has all")
    show = _shower(o, near, alone=len(containers) == 1)
    found = False
    for container, shown in _history(containers, query, near, o.tail, previous=o.previous):
        show(container, shown)
        found = True
    return 0 if found or not o.words else 1


def _near(o: Options) -> Near:
    if o.no_join and o.begins:
        raise InvalidArgument("--no-join and --begins: only one of them can be")
    before = o.before_context if o.before_context is not None else o.context or 0
    after = o.after_context if o.after_context is not None else o.context or 0
    for option, number in (("--before-context", before), ("--after-context", after)):
        if not 0 <= number <= MOST_NEAR:
            raise InvalidArgument(f"{option}: {number} is not from 0 to {MOST_NEAR}")
    if (before or after) and not o.words:
        raise InvalidArgument("--context: there is nothing that is looked for", hint="name a word")
    if (before or after) and o.tail is not None:
        raise InvalidArgument("--tail and --context: only one of them can be", hint="--since 1h says how much, too")
    rule = None if o.no_join else Rule(parse_pattern(o.begins, "--begins") if o.begins else None)
    return Near(rule, before, after)


def _follow(root: str, store: str, where: Where, query: Query, near: Near, o: Options) -> int:
    from pyrun.logs.follow import Follower

    follower = Follower(root, where, Query(), store)
    try:
        show = _shower(o, near, alone=False)
        lines = o.tail if o.tail is not None or query.since or near.before or near.after else BEFORE_FOLLOWING
        history = _history(_chosen(root, store, where), query, near, lines, ends=follower.ends())
        for container, shown in history:
            show(container, shown)
        # For people lines are told as they come, and need not be put together to stand together.
        plain = not o.words and o.format == "text"
        arounds: dict[str, tuple[Container, Around]] = {}
        while time.time_ns() < query.until:
            for container, line in follower.lines():
                if container.directory not in arounds:
                    arounds[container.directory] = container, Around(query, Near() if plain else near)
                for shown in arounds[container.directory][1].add(line):
                    show(container, shown)
            for container, around in arounds.values():
                for shown in around.older(time.time_ns()):
                    show(container, shown)
            follower.wait()
    finally:
        follower.close()
    return 0


def _history(
    containers: list[Container],
    query: Query,
    near: Near,
    lines: int | None,
    *,
    previous: bool = False,
    ends: Ends | None = EVERYTHING,
) -> Iterable[tuple[Container, Shown]]:
    if lines is None and near == Near():
        found: Iterable[tuple[Container, Line]] = read(containers, query, previous=previous, ends=ends)
    elif lines is None:
        return read_near(containers, query, near, previous=previous, ends=ends)
    else:
        last = [(one, line) for one in containers for line in _tail(one, query, near, lines, previous, ends)]
        found = sorted(last, key=lambda item: item[1].time)
    return ((container, Shown(line, hit=True, apart=False)) for container, line in found)


def _tail(
    container: Container, query: Query, near: Near, lines: int, previous: bool, ends: Ends | None
) -> Iterable[Line]:
    if near.rule is None:
        return tail(container, query, lines, previous=previous, ends=ends)
    return tail_entries(container, query, lines, near.rule, previous=previous, ends=ends)


def _chosen(root: str, store: str, where: Where) -> list[Container]:
    return [container for container in collect_containers(root, store) if where.takes(container)]


def _query(o: Options) -> Query:
    if o.since and o.since_time:
        raise InvalidArgument("--since and --since-time: only one of them can be")
    if o.tail is not None and o.tail < 0:
        raise InvalidArgument(f"--tail: {o.tail} is no number of lines")
    since = time.time_ns() - int(o.since * SECOND) if o.since else _time("--since-time", o.since_time, 0)
    until = _time("--until-time", o.until_time, FOREVER)
    stream = "" if o.stream == "both" else o.stream
    return replace(parse_words(o.words, regex=o.regex, whole=o.word), since=since, until=until, stream=stream)


def _time(option: str, text: str | None, otherwise: int) -> int:
    if not text:
        return otherwise
    try:
        return parse_time(text)
    except ValueError:
        raise InvalidArgument(
            f"{option}: {text!r} is no time of RFC 3339", hint="such as 2026-11-27T12:00:00Z"
        ) from None


def _where(o: Options) -> Where:
    uids = _selected(o) if o.selector else None
    return Where(o.namespace or "", o.pod or "", o.container or "", uids)


def _selected(o: Options) -> frozenset[str]:
    """The uids of the pods that have these labels. Labels are not in the logs, so who runs the pods is asked."""
    selector = parse_selector(o.selector)
    from pyrun.cli.commands.cri import STATE, missing_package

    try:
        from pyrun import cri_api as v1
        from pyrun.listen import parse_address
        from pyrun.rpc.client import call_all
    except ModuleNotFoundError as error:
        raise missing_package(error)
    rpc = v1.SERVICES["RuntimeService"]["ListPodSandbox"]
    [pods] = call_all(parse_address(o.listen, STATE), [(rpc, v1.ListPodSandboxRequest())], PATIENCE_S)
    return frozenset(pod.metadata.uid for pod in pods.items if selects(selector, dict(pod.labels)))


def _shower(o: Options, near: Near, *, alone: bool) -> Show:
    terminal = os.isatty(1)
    groups = bool(near.before or near.after) and o.format != "json"
    first = True

    def show(container: Container, shown: Shown) -> None:
        nonlocal first
        if groups and shown.apart and not first:
            _write(b"--\n")
        first = False
        if o.format == "json":
            _write((compact(as_value(container, shown.line, near=not shown.hit)) + "\n").encode())
        else:
            _write(as_text(container, shown.line, timestamps=o.timestamps, alone=alone, terminal=terminal))

    return show


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]
