"""The files of a log to read: plain ones, those that a kubelet compressed, and sealed ones; forward or backward, a
bounded piece at a time, and only where what is looked for may be.

What is unlike the format does not stop a reader: a file cut by a crash, a compressed one whose end is missing, bytes
that are no text.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice

from .line import LONGEST, SECOND, parse_piece
from .query import FOREVER
from .tree import Place, open_segment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from io import FileIO
    from typing import Protocol

    from .around import Known
    from .block import Block, Frame, Tokens
    from .line import Joiner
    from .query import Query
    from .tree import Container, Segment

    class Unpacking(Protocol):
        def read(self, size: int) -> bytes:
            """About so much, nothing at the end; raises where it is damaged."""

        def copy(self) -> Unpacking:
            """One that goes on from here by itself."""


@dataclass(frozen=True, slots=True)
class End:
    """Where a container's history ends, because somebody follows it from there. before: the place of the last file that
    is history entirely; file: device and inode of the one after it, of which `size` bytes are."""

    before: Place
    file: tuple[int, int]
    size: int


# Containers' directories → where their histories end; one that is not there has none. None: no history ends.
Ends = Mapping[str, End]
EVERYTHING: Ends | None = None
CHUNK = 1 << 20
# Of a compressed file, read at once. A point to go on from takes so much and 40 KB.
INPUT = 64 << 10
_GZIP = 16 + zlib.MAX_WBITS
# Of a file that can only be unpacked from its beginning, the part that is held while it is read backward.
HELD = 32 << 20
# Lines may stand a little out of order, by two streams and where the clock was set back; a seek goes so much further.
SLACK = 5 * SECOND


@contextmanager
def opened(container: Container, segment: Segment, query: Query, end: End | None) -> Iterator[File]:
    """The file as far as it is history; one without a line where it is gone."""
    found = open_segment(container, segment)
    if found is None:
        yield File()
        return
    fd, now = found
    with open(fd, "rb", buffering=0) as file:
        if now.sealed:
            yield _open_block(file, query, segment.place, end)
        elif now.compressed:
            whole = end is None or segment.place <= end.before
            yield _Packed(lambda: _Gunzip(fd)) if whole else File()
        else:
            about = os.fstat(fd)
            yield _Plain(fd, _limit((about.st_dev, about.st_ino), about.st_size, segment.place, end), query)


def _limit(file: tuple[int, int], size: int, place: Place, end: End | None) -> int:
    """How much of a file is to be read."""
    if end is None or place <= end.before:
        return size
    return min(size, end.size) if file == end.file else 0


class File:
    """A file of which nothing is read."""

    def forward(self, joiner: Joiner) -> Iterator[Known]:
        """Whole lines, about a CHUNK at a time. What follows the last newline comes last. Of what can't have a line
        that is looked for, while the joiner is idle, there may be only what reads it."""
        return iter(())

    def backward(self) -> Iterator[bytes]:
        """Lines without their newlines, the last one first."""
        return iter(())


class _Packed(File):
    """One that can only be unpacked from its beginning, or again from a point that it was unpacked up to. begin() makes
    what does that."""

    def __init__(self, begin: Callable[[], Unpacking]) -> None:
        self._begin = begin

    def forward(self, joiner: Joiner) -> Iterator[Known]:
        return ((chunk, False) for chunk in _Chunks(self._begin().read))

    def backward(self) -> Iterator[bytes]:
        """Unpacks each byte twice at most, the last HELD once."""
        unpacking = self._begin()
        chunks = _Chunks(unpacking.read)
        points: list[tuple[Unpacking, bytes, int]] = []  # from where on how many chunks are HELD, or a little more
        begun, held, size = (unpacking.copy(), b""), list[bytes](), 0
        for chunk in chunks:
            held.append(chunk)
            size += len(chunk)
            if size >= HELD:
                points.append((*begun, len(held)))
                begun, held, size = (unpacking.copy(), chunks.rest), [], 0
        while True:
            while held:
                yield from reversed(held.pop().removesuffix(b"\n").split(b"\n"))
            if not points:
                return
            unpacking, rest, number = points.pop()
            held = list(islice(_Chunks(unpacking.read, rest), number))


class _Gunzip:
    """Of a damaged file all that comes before the damage; then it raises zlib.error."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._inflate = zlib.decompressobj(_GZIP)
        self._packed, self._at = b"", 0
        self._between = False  # behind a member

    def copy(self) -> _Gunzip:
        made = _Gunzip(self._fd)
        made._inflate, made._packed, made._at = self._inflate.copy(), self._packed, self._at
        made._between = self._between
        return made

    def read(self, size: int) -> bytes:
        while True:
            if self._inflate.eof:
                self._packed, self._between = self._inflate.unused_data, True
                self._inflate = zlib.decompressobj(_GZIP)
            if not self._packed:
                self._packed = os.pread(self._fd, INPUT, self._at)
                self._at += len(self._packed)
            if not self._packed:
                return b""
            if self._between:  # a file may have several members, and any number of zeros behind each
                self._packed = self._packed.lstrip(b"\0")
                self._between = not self._packed
            if self._packed and (data := self._unpack(size)):
                return data

    def _unpack(self, size: int) -> bytes:
        before = self._inflate.copy()
        try:
            data = self._inflate.decompress(self._packed, size)
        except zlib.error:
            if size == 1:
                raise
            self._inflate = before
            return self._unpack(size // 2)
        self._packed = self._inflate.unconsumed_tail
        return data


class _Plain(File):
    def __init__(self, fd: int, end: int, query: Query) -> None:
        self._fd = fd
        self._end = end
        self._since, self._until = query.since, query.until

    def forward(self, joiner: Joiner) -> Iterator[Known]:
        at = seek(self._fd, self._since - SLACK, self._end) if self._since else 0

        def read(wanted: int) -> bytes:
            nonlocal at
            data = os.pread(self._fd, min(wanted, self._end - at), at)
            at += len(data)
            return data

        return ((chunk, False) for chunk in _Chunks(read))

    def backward(self) -> Iterator[bytes]:
        at, rest = self._end, b""
        if self._until < FOREVER:
            at = seek_after(self._fd, self._until + SLACK, self._end)
        if at > 0 and os.pread(self._fd, 1, at - 1) == b"\n":
            at -= 1
        while at > 0:
            length = min(CHUNK // 16, at)
            at -= length
            rest, *others = (os.pread(self._fd, length, at) + rest).split(b"\n")
            yield from reversed(others)
        if rest:
            yield rest


class _Sealed(File):
    """A block, of which only those frames are unpacked that may have what is looked for."""

    def __init__(self, block: Block, limit: int, query: Query, tokens: Tokens | None) -> None:
        self._block = block
        self._limit = limit
        self._query = query
        self._tokens = tokens

    def _wanted(self, frame: Frame) -> bool:
        if not frame.whole:
            return True
        if frame.last < self._query.since - SLACK or frame.first >= self._query.until + SLACK:
            return False
        return self._tokens is None or self._block.may_have(frame, self._tokens)

    def _lines(self, frame: Frame) -> bytes:
        try:
            return self._block.read(frame)[: self._limit - frame.start]
        except ValueError:
            return b""  # damaged: what is around it is told

    def forward(self, joiner: Joiner) -> Iterator[Known]:
        for frame in self._block.frames:
            if frame.start >= self._limit:
                continue
            if joiner.idle and not self._wanted(frame):
                yield partial(self._lines, frame), frame.whole
            elif lines := self._lines(frame):
                yield lines, frame.whole

    def backward(self) -> Iterator[bytes]:
        # A piece whose line begins in an older frame is joined to it, for that one has pieces too.
        for frame in reversed(self._block.frames):
            if frame.start < self._limit and self._wanted(frame) and (lines := self._lines(frame)):
                yield from reversed(lines.removesuffix(b"\n").split(b"\n"))


def _open_block(file: FileIO, query: Query, place: Place, end: End | None) -> File:
    from .block import Block, Tokens, Unpacked

    try:
        block = Block(file.fileno())
    except ValueError:
        return File() if end is not None and place > end.before else _Packed(lambda: Unpacked(file.fileno()))
    words = query.tokens()
    limit = _limit(block.about.original, block.about.size, place, end)
    return _Sealed(block, limit, query, Tokens(words) if words else None)


class _Chunks:
    """Whole lines, about a CHUNK at a time. What follows the last newline comes last. rest: what was read of the first
    line before, and after each chunk what was read of the next one."""

    def __init__(self, read: Callable[[int], bytes], rest: bytes = b"") -> None:
        self._read = read
        self.rest = rest

    def __iter__(self) -> Iterator[bytes]:
        while data := self._more():
            end = data.rfind(b"\n") + 1
            if end == 0 and len(self.rest) + len(data) < 4 * LONGEST:
                self.rest += data
                continue
            end = end or len(data)
            chunk, self.rest = self.rest + data[:end], data[end:]
            yield chunk
        if self.rest:
            chunk, self.rest = self.rest, b""
            yield chunk

    def _more(self) -> bytes:
        try:
            return self._read(CHUNK)
        except (OSError, ValueError, zlib.error):
            return b""  # cut or damaged: what came before it is told


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


def seek_after(fd: int, time: int, end: int) -> int:
    """An offset of a line's start, or `end`, such that no line from there on is older than `time`."""
    low, high, found_at = 0, end, end
    while high - low > CHUNK // 4:
        middle = (low + high) // 2
        found = _first_time(fd, middle, high)
        if found is None:
            high = middle
        elif found[1] >= time:
            high, found_at = middle, found[0]
        else:
            low = found[0]
    return found_at


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
