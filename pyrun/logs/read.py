"""Reads files of logs: forward from a time, or backward from the end, in chunks, so that memory stays bounded.

What is unlike the format does not stop a reader: a file cut by a crash, a compressed one whose end is missing, bytes
that are no text.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections import deque
from collections.abc import Mapping
from heapq import merge
from itertools import count

from .line import LONGEST, SECOND, Joiner, Line, parse_piece
from .tree import Container, collect_segments, open_segment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .query import Query
    from .tree import Segment

# inode → bytes: of a file that is being written to, how much is read.
Ends = Mapping[int, int]
EVERYTHING: Ends = {}
CHUNK = 1 << 20
# Streams' lines may stand a little out of order; a seek goes that much further back.
SLACK = 5 * SECOND


def read(
    containers: Iterable[Container], query: Query, *, previous: bool = False, ends: Ends = EVERYTHING
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
    container: Container, query: Query, *, previous: bool = False, ends: Ends = EVERYTHING
) -> Iterator[Line]:
    """All of a container's lines that the query takes, the oldest first."""
    for segments in _by_attempt(segments_of(container, previous=previous)):
        joiner = Joiner()
        for segment in segments:
            yield from _read_segment(segment, joiner, query, ends)
        yield from (line for line in joiner.rest() if query.takes(line))


def _by_attempt(segments: list[Segment]) -> list[list[Segment]]:
    """A line may be cut by a rotation, but not by the container's end."""
    attempts = sorted({segment.attempt for segment in segments})
    return [[segment for segment in segments if segment.attempt == attempt] for attempt in attempts]


def _read_segment(segment: Segment, joiner: Joiner, query: Query, ends: Ends) -> Iterator[Line]:
    fd = open_segment(segment.path)
    if fd is None:
        return
    with open(fd, "rb", buffering=0) as file:
        if segment.compressed:
            yield from _matching(_chunks(gzip.GzipFile(fileobj=file).read1), joiner, query)
            return
        end = _end(fd, ends)
        file.seek(seek(fd, query.since - SLACK, end) if query.since else 0)
        yield from _matching(_chunks(lambda wanted: file.read(min(wanted, end - file.tell()))), joiner, query)


def _end(fd: int, ends: Ends) -> int:
    """How much of a file is to be read."""
    about = os.fstat(fd)
    return min(about.st_size, ends.get(about.st_ino, about.st_size))


def _matching(chunks: Iterable[bytes], joiner: Joiner, query: Query) -> Iterator[Line]:
    """Each chunk holds whole lines. What is not wanted is passed over as early as can be, since that is most."""
    for chunk in chunks:
        # A word may stand across the pieces of a line, so a chunk with pieces is read whatever it holds.
        if joiner.idle and b" P " not in chunk and not query.may_be_in(chunk):
            continue
        for raw in chunk.removesuffix(b"\n").split(b"\n"):
            words = raw.split(b" ", 3)
            if joiner.idle and len(words) == 4 and words[2] == b"F" and not query.matches(words[3]):
                continue
            line = joiner.add(raw)
            if line is not None and query.takes(line):
                yield line


def _chunks(read: Callable[[int], bytes | None]) -> Iterator[bytes]:
    """Whole lines, about a CHUNK at a time. What follows the last newline comes last."""
    rest = b""
    while True:
        try:
            data = read(CHUNK)
        except (EOFError, OSError, zlib.error):
            data = b""  # cut or damaged: what came before it is told
        if not data:
            break
        end = data.rfind(b"\n") + 1
        if end == 0 and len(rest) + len(data) < 4 * LONGEST:
            rest += data
            continue
        end = end or len(data)
        yield rest + data[:end]
        rest = data[end:]
    if rest:
        yield rest


def seek(fd: int, time: int, end: int) -> int:
    """An offset of a line's start such that all lines before it are older than `time`; found by halving."""
    low, high = 0, end
    while high - low > CHUNK // 4:
        middle = (low + high) // 2
        found = _first_time(fd, middle, high)
        if found is None or found[1] >= time:
            high = middle
        else:
            low = found[0]
    return low


def _first_time(fd: int, start: int, end: int) -> tuple[int, int] | None:
    """(offset, time) of the first line that begins after `start`, in the next 256 KiB."""
    data = os.pread(fd, min(CHUNK // 4, end - start), start)
    at = data.find(b"\n") + 1
    while at > 0 and at < len(data):
        stop = data.find(b"\n", at)
        piece = parse_piece(data[at : stop if stop >= 0 else None])
        if piece is not None:
            return start + at, piece[0]
        at = stop + 1
    return None


def tail(
    container: Container, query: Query, lines: int, *, previous: bool = False, ends: Ends = EVERYTHING
) -> list[Line]:
    """The last `lines` of a container that the query takes, the oldest first. Reads backward, and no more than that
    takes."""
    found: deque[Line] = deque()
    for segments in reversed(_by_attempt(segments_of(container, previous=previous))):
        for line in _backward(segments, ends):
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


def _backward(segments: list[Segment], ends: Ends) -> Iterator[Line]:
    """The lines of an attempt from its end. The first piece of a line comes last: a line is whole when an older one of
    its stream is met, or when its stream says nothing for a CHUNK. The lines after it wait for that."""
    waiting: deque[_Pieces] = deque()
    newest: dict[str, _Pieces] = {}
    at = 0
    for raw in (raw for segment in reversed(segments) for raw in _raws_backward(segment, ends)):
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


def _raws_backward(segment: Segment, ends: Ends) -> Iterator[bytes]:
    fd = open_segment(segment.path)
    if fd is None:
        return
    with open(fd, "rb", buffering=0) as file:
        if segment.compressed:
            whole = b"".join(_chunks(gzip.GzipFile(fileobj=file).read1))
            yield from reversed(whole.removesuffix(b"\n").split(b"\n"))
            return
        at, rest = _end(fd, ends), b""
        if at > 0 and os.pread(fd, 1, at - 1) == b"\n":
            at -= 1
        while at > 0:
            length = min(CHUNK // 16, at)
            at -= length
            rest, *others = (os.pread(fd, length, at) + rest).split(b"\n")
            yield from reversed(others)
        if rest:
            yield rest
