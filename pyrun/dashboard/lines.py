"""A container's log for a page: its newest lines, the ones before those, and what is written after them.

Lines that belong together, such as a stack trace, are one where a page asks for entries (logs/entry.py). History and
what follows it have no gap and no line twice: a follower's history ends where it begins.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from ..errors import InvalidArgument, NotFound, ResourceExhausted
from ..logs.around import Around, Near
from ..logs.entry import GAP, Rule
from ..logs.files import EVERYTHING, Ends
from ..logs.follow import Follower
from ..logs.line import Line, parse_time
from ..logs.query import FOREVER, Query, Where, parse_words
from ..logs.read import read_container, tail, tail_entries
from ..logs.show import time_text
from ..logs.tree import Container, Logs
from .clean import clean_bytes

SEARCH_S = 10.0
MOST_LINES = 10_000
# Of all of them: a pod writes lines as long as it likes.
MOST_BYTES = 32 << 20
# Of a follower, in TICK_S; what is more is skipped, since nobody can read it.
BURST_LINES = 1000
TICK_S = 0.25


@dataclass(frozen=True, slots=True)
class Bounded(Query):
    """A query that gives up at `last` (time.monotonic())."""

    last: float = 0.0

    def takes(self, line: Line) -> bool:
        if time.monotonic() > self.last:
            raise ResourceExhausted(f"nothing more was found in {SEARCH_S:.0f} s", hint="pyrun logs has all the time")
        return Query.takes(self, line)


@dataclass(frozen=True, slots=True)
class Asked:
    """where: of which containers. lines: the last so many. until: only what began then or before (nanoseconds since
    1970). since: not 0: the first so many from then on. entries: lines that belong together are one. previous: of the
    attempt before the newest."""

    where: Where
    query: Query
    lines: int
    since: int
    until: int
    entries: bool
    previous: bool


@dataclass(frozen=True, slots=True)
class Exactly(Where):
    """Names as they stand, and no patterns."""

    def takes(self, container: Container) -> bool:
        named = (container.namespace, container.pod) == (self.namespace, self.pod)
        uids = self.uids or frozenset()
        return named and container.uid in uids and self.container in ("", container.name)


def parse_asked(question: dict[str, Any], *, fewest: int) -> Asked:
    """InvalidArgument names what is wrong."""
    namespace, pod, uid, container = (str(word) for word in question["of"])
    words = tuple(str(word) for word in question["words"])
    lines = int(question.get("lines", 0))
    if not fewest <= lines <= MOST_LINES:
        raise InvalidArgument(f"{lines} lines: {fewest} to {MOST_LINES} can be had")
    since, until = _time(question, "since", 0), _time(question, "until", FOREVER)
    entries = bool(question.get("entries"))
    if since and entries:
        raise InvalidArgument("since: not with entries", hint="what came before may belong to the first one")
    query = replace(parse_words(words, regex=False), stream=str(question["stream"]))
    where = Exactly(namespace, pod, container, frozenset([uid]))
    return Asked(where, query, lines, since, until, entries, bool(question.get("previous")))


def _time(question: dict[str, Any], name: str, otherwise: int) -> int:
    try:
        return parse_time(str(question[name])) if question.get(name) else otherwise
    except ValueError as error:
        raise InvalidArgument(f"{name}: {error}", hint="such as 2026-11-27T12:00:00Z") from None


def search(logs: Logs, asked: Asked, ends: Ends | None = EVERYTHING) -> list[dict[str, Any]]:
    """The newest lines, or the first ones from a time on, by time; fewer than asked where they are very long. NotFound
    where there is no such log; ResourceExhausted after SEARCH_S."""
    chosen = [one for one in logs.containers() if asked.where.takes(one)]
    if not chosen:
        raise NotFound(f"{logs.root} has no logs of this container", hint="it may not have started yet")
    # An entry that begins in time goes on after it.
    until = min(FOREVER, asked.until + (2 * GAP if asked.entries else 1))
    bounded = Bounded(**{one.name: getattr(asked.query, one.name) for one in fields(asked.query)})
    bounded = replace(bounded, since=asked.since, until=until, last=time.monotonic() + SEARCH_S)
    if asked.since:
        return _first(chosen, bounded, asked, ends)
    size, since = MOST_BYTES // len(chosen), 0
    found = []
    for one in chosen:
        lines = _tail(one, bounded, asked, ends, size)
        if sum(len(line.content) for line in lines) > size:  # what is before its first one is not here, of nobody
            since = max(since, lines[0].time)
        found += [(line.time, shown(one, line)) for line in lines]
    found.sort(key=lambda item: item[0])
    return [value for time, value in found[-asked.lines :] if time >= since]


def _first(chosen: list[Container], query: Query, asked: Asked, ends: Ends | None) -> list[dict[str, Any]]:
    """Of what several containers wrote all up to where the first of them was left off."""
    size, until = MOST_BYTES // len(chosen), FOREVER
    found = []
    for one in chosen:
        left, taken = size, 0
        for line in read_container(one, query, previous=asked.previous, ends=ends):
            found.append((line.time, shown(one, line)))
            left -= len(line.content)
            taken += 1
            if left < 0 or taken >= asked.lines:
                until = min(until, line.time)
                break
    found.sort(key=lambda item: item[0])
    return [value for time, value in found if time <= until][: asked.lines]


def _tail(container: Container, query: Query, asked: Asked, ends: Ends | None, size: int) -> list[Line]:
    words: dict[str, Any] = {"previous": asked.previous, "ends": ends, "size": size}
    if not asked.entries:
        return tail(container, query, asked.lines, **words)
    return tail_entries(container, query, asked.lines, Rule(), begun=asked.until, **words)


def follow(
    logs: Logs,
    asked: Asked,
    put: Callable[[dict[str, Any]], None],
    is_closed: Callable[[float], bool],
    look: Callable[[Asked, Ends | None], list[dict[str, Any]]],
) -> None:
    """First what there is, `asked.lines` of it by look(), or why not; then what is written, until nobody looks any
    more."""

    def begin() -> Follower:
        return Follower(logs.root, asked.where, Query(), logs.store)

    follower = begin()
    skipped = 0
    try:
        try:
            put({"lines": look(asked, follower.ends()) if asked.lines else [], "skipped": 0})
        except (NotFound, ResourceExhausted) as error:  # it may start yet; and what comes is found at once
            put({"lines": [], "skipped": 0, "told": "; ".join(error.lines())})
        entries = Following(asked)
        while True:
            lines, more = entries.burst(follower)
            if lines or skipped:
                put({"lines": lines, "skipped": skipped})
                skipped = 0
            if more:
                before = follower.offsets()
                follower.close()
                follower = begin()
                skipped = sum(max(0, end - before.get(file, end)) for file, end in follower.offsets().items())
                entries = Following(asked)
            if is_closed(TICK_S):
                return
            if not more:
                follower.wait()
    finally:
        follower.close()


class Following:
    """Makes what is to be shown of the lines that come. Without words lines are told as they come: those of an entry
    stand below each other anyway."""

    def __init__(self, asked: Asked) -> None:
        self._query = asked.query
        self._near = Near(Rule() if asked.entries and asked.query.words else None)
        self._arounds: dict[str, tuple[Container, Around]] = {}

    def burst(self, follower: Follower) -> tuple[list[dict[str, Any]], bool]:
        """(what has come, whether there is more than can be shown)."""
        found: list[dict[str, Any]] = []
        for container, line in follower.lines():
            if len(found) >= BURST_LINES:
                return found, True
            if container.directory not in self._arounds:
                self._arounds[container.directory] = container, Around(self._query, self._near)
            found += [shown(container, one.line) for one in self._arounds[container.directory][1].add(line)]
        for container, around in self._arounds.values():
            found += [shown(container, one.line) for one in around.older(time.time_ns())]
        return found, False


def shown(container: Container, line: Line) -> dict[str, Any]:
    content = "\n".join(clean_bytes(one) for one in line.content.split(b"\n"))
    return {"time": time_text(line.time), "container": container.name, "stream": line.stream, "line": content}
