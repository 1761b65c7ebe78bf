"""Reads files of logs: forward from a time, or backward from the end, in chunks, so that memory stays bounded.

What is unlike the format does not stop a reader: a file cut by a crash, a compressed one whose end is missing, bytes
that are no text.
"""

from __future__ import annotations

import sys
from collections import deque
from contextlib import ExitStack
from heapq import merge
from itertools import count

from .around import RECENT, Around, Near, Search
from .entry import MOST_LINES
from .files import CHUNK, EVERYTHING, SLACK, End, opened
from .line import LONGEST, Joiner, Line, has_pieces, parse_piece
from .query import FOREVER
from .tree import BEFORE_ALL, collect_segments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .around import Known, Shown
    from .entry import Rule
    from .files import Ends
    from .query import Query
    from .tree import Container, Segment


def read(
    containers: Iterable[Container], query: Query, *, previous: bool = False, ends: Ends | None = EVERYTHING
) -> Iterator[tuple[Container, Line]]:
    """The lines of several containers in the order of their times. previous: only of the attempt before the newest."""
    turn = count()
    streams = [_keyed(one, next(turn), read_container(one, query, previous=previous, ends=ends)) for one in containers]
    for _, _, container, line in merge(*streams, key=lambda item: item[:2]):
        yield container, line


def _keyed(container: Container, turn: int, lines: Iterable[Line]) -> Iterator[tuple[int, int, Container, Line]]:
    for line in lines:
        yield line.time, turn, container, line


def segments_of(container: Container, *, previous: bool) -> list[Segment]:
    """Its files, the oldest first; of the attempt before the newest alone where `previous`."""
    segments = collect_segments(container)
    if not previous:
        return segments
    attempts = sorted({segment.attempt for segment in segments})
    return [segment for segment in segments if len(attempts) > 1 and segment.attempt == attempts[-2]]


def read_container(
    container: Container, query: Query, *, previous: bool = False, ends: Ends | None = EVERYTHING
) -> Iterator[Line]:
    """All of a container's lines that the query takes, the oldest first."""
    end = _end_of(container, ends)
    for segments in _by_attempt(segments_of(container, previous=previous)):
        joiner = Joiner()
        for segment in segments:
            with opened(container, segment, query, end) as file:
                yield from _matching(file.forward(joiner), joiner, query)
        yield from (line for line in joiner.rest() if query.takes(line))


def _by_attempt(segments: list[Segment]) -> list[list[Segment]]:
    """A line may be cut by a rotation, but not by the container's end."""
    attempts = sorted({segment.attempt for segment in segments})
    return [[segment for segment in segments if segment.attempt == attempt] for attempt in attempts]


def _end_of(container: Container, ends: Ends | None) -> End | None:
    return None if ends is None else ends.get(container.directory, End(BEFORE_ALL, (0, 0), 0))


def _matching(chunks: Iterable[Known], joiner: Joiner, query: Query) -> Iterator[Line]:
    """Each chunk holds whole lines. What is not wanted is passed over as early as can be, since that is most."""
    for chunk, whole in chunks:
        if not isinstance(chunk, bytes):
            continue
        # A word may stand across the pieces of a line, so a chunk with pieces is read whatever it holds.
        plain = joiner.idle and (whole or not has_pieces(chunk))
        if plain and not query.may_be_in(chunk):
            continue
        for raw in query.lines_of(chunk) if plain else chunk.removesuffix(b"\n").split(b"\n"):
            words = raw.split(b" ", 3)
            if joiner.idle and len(words) == 4 and words[2] == b"F" and not query.matches(words[3]):
                continue
            line = joiner.add(raw)
            if line is not None and query.takes(line):
                yield line


def read_near(
    containers: Iterable[Container],
    query: Query,
    near: Near,
    *,
    previous: bool = False,
    ends: Ends | None = EVERYTHING,
) -> Iterator[tuple[Container, Shown]]:
    """What is found with what is near to it, of several containers: what is not apart stays together."""
    turn = count()
    streams = [_runs(one, next(turn), _near_of(one, query, near, previous, _end_of(one, ends))) for one in containers]
    for _, _, container, run in merge(*streams, key=lambda item: item[:2]):
        for shown in run:
            yield container, shown


# So many entries that are not apart are held, at most, to keep them together.
LONGEST_RUN = 1000


def _runs(container: Container, turn: int, found: Iterable[Shown]) -> Iterator[tuple[int, int, Container, list[Shown]]]:
    run: list[Shown] = []
    for shown in found:
        if run and (shown.apart or len(run) >= LONGEST_RUN):
            yield run[0].line.time, turn, container, run
            run = []
        run.append(shown)
    if run:
        yield run[0].line.time, turn, container, run


def _near_of(container: Container, query: Query, near: Near, previous: bool, end: End | None) -> Iterator[Shown]:
    for segments in _by_attempt(segments_of(container, previous=previous)):
        search = Search(query, near)
        with ExitStack() as all_files:
            # What reads a chunk of an older file may still be asked.
            files: deque[ExitStack] = deque()
            for segment in segments:
                files.append(all_files.enter_context(ExitStack()))
                file = files[-1].enter_context(opened(container, segment, query, end))
                yield from search.add(file.forward(search.joiner))
                if len(files) > RECENT:
                    files.popleft().close()
            yield from search.end()


def tail_entries(
    container: Container,
    query: Query,
    entries: int,
    rule: Rule,
    *,
    previous: bool = False,
    ends: Ends | None = EVERYTHING,
    begun: int = FOREVER,
    size: int = sys.maxsize,
) -> list[Line]:
    """As `tail`, but entries, of those that began at `begun` or before; what goes on after that is told as far as the
    query takes it."""
    found: list[Line] = []
    for segments in reversed(_by_attempt(segments_of(container, previous=previous))):
        raws = _raws_backward(container, segments, query, _end_of(container, ends))
        for lines in _whole_entries(_backward(raws), rule):
            if any(map(query.takes, lines)):
                new = [one for one in _hits(lines, query, rule) if one.time <= begun]
                size -= sum(len(one.content) for one in new)
                found[:0] = new
            if size < 0 or len(found) >= entries or lines[-1].time < query.since - SLACK:
                break
        if size < 0 or len(found) >= entries:
            break
    found.sort(key=lambda line: line.time)
    return found[max(0, len(found) - entries) :]


def _whole_entries(backward: Iterable[Line], rule: Rule) -> Iterator[list[Line]]:
    """Lines in which no entry is begun and not ended, or the other way round; still the last one first."""
    lines: list[Line] = []
    going_on: set[str] = set()
    for line in backward:
        lines.append(line)
        if rule.may_go_on(line.content):
            going_on.add(line.stream)
        else:
            going_on.discard(line.stream)
        if not going_on or len(lines) > 2 * MOST_LINES:
            yield lines
            lines, going_on = [], set()
    if lines:
        yield lines


def _hits(backward: list[Line], query: Query, rule: Rule) -> list[Line]:
    around = Around(query, Near(rule))
    found = [shown.line for line in reversed(backward) for shown in around.add(line)]
    return found + [shown.line for shown in around.gap()]


def tail(
    container: Container,
    query: Query,
    lines: int,
    *,
    previous: bool = False,
    ends: Ends | None = EVERYTHING,
    size: int = sys.maxsize,
) -> list[Line]:
    """The last `lines` of a container that the query takes, the oldest first. Reads backward, and no more than that
    takes. size: with so many bytes there are enough, too."""
    found: deque[Line] = deque()
    for segments in reversed(_by_attempt(segments_of(container, previous=previous))):
        for line in _backward(_raws_backward(container, segments, query, _end_of(container, ends))):
            if size < 0 or len(found) >= lines or (line.stream and line.time < query.since - SLACK):
                break
            if query.takes(line):
                found.appendleft(line)
                size -= len(line.content)
        if size < 0 or len(found) >= lines:
            break
    return sorted(found, key=lambda line: line.time)


class _Pieces:
    """The pieces of a line, the last one first. at: how many bytes had been read before them."""

    __slots__ = ("at", "complete", "raws", "size")

    def __init__(self, raw: bytes, at: int) -> None:
        self.raws = [raw]
        self.size = len(raw)
        self.at = at
        self.complete = False

    def add(self, raw: bytes) -> None:
        self.raws.append(raw)
        self.size += len(raw)
        self.complete = self.size >= LONGEST

    def lines(self) -> Iterator[Line]:
        joiner = Joiner()
        found = [line for raw in reversed(self.raws) if (line := joiner.add(raw))]
        yield from reversed([*found, *joiner.rest()])


def _raws_backward(container: Container, segments: list[Segment], query: Query, end: End | None) -> Iterator[bytes]:
    for segment in reversed(segments):
        with opened(container, segment, query, end) as file:
            yield from file.backward()


def _backward(raws: Iterable[bytes]) -> Iterator[Line]:
    """The lines of an attempt from its end. The first piece of a line comes last: a line is whole when an older one of
    its stream is met, or when its stream says nothing for a CHUNK. The lines after it wait for that."""
    waiting: deque[_Pieces] = deque()
    newest: dict[str, _Pieces] = {}
    at = 0
    for raw in raws:
        at += len(raw)
        piece = parse_piece(raw)
        stream, partial = (piece[1], piece[2]) if piece else ("", False)
        pieces = newest.get(stream)
        if partial and pieces is not None and not pieces.complete:
            pieces.add(raw)
        else:
            if pieces is not None:
                pieces.complete = True
            newest[stream] = _Pieces(raw, at)
            waiting.append(newest[stream])
        while waiting[0].complete or at - waiting[0].at > CHUNK:
            pieces = waiting.popleft()
            pieces.complete = True
            yield from pieces.lines()
            if not waiting:
                break
    for pieces in waiting:
        yield from pieces.lines()
