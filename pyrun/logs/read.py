"""Reads files of logs: forward from a time, or backward from the end, in chunks, so that memory stays bounded.

What is unlike the format does not stop a reader: a file cut by a crash, a compressed one whose end is missing, bytes
that are no text.
"""

from __future__ import annotations

from collections import deque
from heapq import merge
from itertools import count

from .files import CHUNK, EVERYTHING, SLACK, End, opened
from .line import LONGEST, Joiner, Line, parse_piece
from .tree import BEFORE_ALL, collect_segments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

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


def _matching(chunks: Iterable[bytes], joiner: Joiner, query: Query) -> Iterator[Line]:
    """Each chunk holds whole lines. What is not wanted is passed over as early as can be, since that is most."""
    for chunk in chunks:
        # A word may stand across the pieces of a line, so a chunk with pieces is read whatever it holds.
        plain = joiner.idle and b" P " not in chunk and b" P:" not in chunk
        if plain and not query.may_be_in(chunk):
            continue
        for raw in query.lines_of(chunk) if plain else chunk.removesuffix(b"\n").split(b"\n"):
            words = raw.split(b" ", 3)
            if joiner.idle and len(words) == 4 and words[2] == b"F" and not query.matches(words[3]):
                continue
            line = joiner.add(raw)
            if line is not None and query.takes(line):
                yield line


def tail(
    container: Container, query: Query, lines: int, *, previous: bool = False, ends: Ends | None = EVERYTHING
) -> list[Line]:
    """The last `lines` of a container that the query takes, the oldest first. Reads backward, and no more than that
    takes."""
    found: deque[Line] = deque()
    for segments in reversed(_by_attempt(segments_of(container, previous=previous))):
        for line in _backward(_raws_backward(container, segments, query, _end_of(container, ends))):
            if len(found) >= lines or (line.stream and line.time < query.since - SLACK):
                break
            if query.takes(line):
                found.appendleft(line)
        if len(found) >= lines:
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
