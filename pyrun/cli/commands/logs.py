"""`pyrun logs`: what pods wrote, searched and followed."""

from __future__ import annotations

import os
import time
from dataclasses import replace

from pyrun.cli.output import compact
from pyrun.errors import InvalidArgument, NotFound
from pyrun.logs.files import EVERYTHING
from pyrun.logs.line import SECOND, Line, parse_time
from pyrun.logs.query import FOREVER, Query, Where, parse_selector, parse_words, selects
from pyrun.logs.read import read, tail
from pyrun.logs.show import as_text, as_value
from pyrun.logs.tree import POD_LOGS, Container, collect_containers, default_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options
    from pyrun.logs.files import Ends

    Show = Callable[[Container, Line], None]

PATIENCE_S = 10.0
# Of what was written before, when nothing says how much.
BEFORE_FOLLOWING = 10


def run(g: Globals, o: Options) -> int:
    query, where, root = _query(o), _where(o), o.dir or POD_LOGS
    store = os.path.abspath(o.store) if o.store else default_store(root)
    if o.previous and o.follow:
        raise InvalidArgument("--previous: what has ended can't be followed", hint="leave out --follow or --previous")
    if o.follow:
        return _follow(root, store, where, query, o)
    containers = _chosen(root, store, where)
    if not containers:
        raise NotFound(f"{root}: no container's logs are there that fit", hint="pyrun logs without --pod … has all")
    show = _shower(o, alone=len(containers) == 1)
    found = False
    for container, line in _history(containers, query, o.tail, previous=o.previous):
        show(container, line)
        found = True
    return 0 if found or not o.words else 1


def _follow(root: str, store: str, where: Where, query: Query, o: Options) -> int:
    from pyrun.logs.follow import Follower

    follower = Follower(root, where, query, store)
    try:
        show = _shower(o, alone=False)
        lines = o.tail if o.tail is not None or query.since else BEFORE_FOLLOWING
        for container, line in _history(_chosen(root, store, where), query, lines, ends=follower.ends()):
            show(container, line)
        while time.time_ns() < query.until:
            for container, line in follower.lines():
                show(container, line)
            follower.wait()
    finally:
        follower.close()
    return 0


def _history(
    containers: list[Container],
    query: Query,
    lines: int | None,
    *,
    previous: bool = False,
    ends: Ends | None = EVERYTHING,
) -> Iterable[tuple[Container, Line]]:
    if lines is None:
        return read(containers, query, previous=previous, ends=ends)
    last = [(one, line) for one in containers for line in tail(one, query, lines, previous=previous, ends=ends)]
    return sorted(last, key=lambda item: item[1].time)


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


def _shower(o: Options, *, alone: bool) -> Show:
    terminal = os.isatty(1)

    def show(container: Container, line: Line) -> None:
        if o.format == "json":
            _write((compact(as_value(container, line)) + "\n").encode())
        else:
            _write(as_text(container, line, timestamps=o.timestamps, alone=alone, terminal=terminal))

    return show


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]
