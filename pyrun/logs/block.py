"""A file of a log, sealed: compressed in frames that can be read one by one, with what each is asked for by.

It is a file of zstd (RFC 8878), so `zstd -dc` gives the log back byte by byte. Frames are of whole lines, FRAME bytes
or a little more. Last comes a skippable frame, which decompressors pass over, with the *index*:

    filters    a Bloom filter of the words of each frame, a 32nd of the size of its lines (cffi_build/logs/tokens.c)
    rows       for each frame: where it is, how many bytes, lines, the first and the last time (_ROW)
    trailer    what the log was, how many rows there are, a checksum of rows and trailer (_TRAILER)

A word in several pieces of a line is in no filter; a frame with pieces says so, and nothing is concluded from its own.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass

import zstandard

from pyrun._tokens import ffi, lib

from .line import has_pieces, parse_piece

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FRAME = 256 << 10
# A line that is longer than this is cut between frames, so that a frame fits into memory.
LONGEST_FRAME = 8 << 20
LEVEL = 3
NEVER, FOREVER = 0, (1 << 63) - 1
_SKIPPABLE = 0x184D2A5E
_SKIP_HEAD = struct.Struct("<II")
# offset, bytes, offset of the lines, their bytes, lines, first and last time, offset and bytes of the filter, whole
_ROW = struct.Struct("<QIQIIqqQI?")
# device, inode, rows, bytes and lines of all, first and last time, version, checksum, magic
_TRAILER = struct.Struct("<QQIQQqqII4s")
_MAGIC, _VERSION = b"PYLB", 1
_CHECK = _TRAILER.size - 8


@dataclass(frozen=True, slots=True)
class Frame:
    """at, size: of the frame in the file. start, length: what it holds of the log; lines: how many end in it. first,
    last: times; NEVER and FOREVER where they are not known. whole: it has no pieces and ends with a line."""

    at: int
    size: int
    start: int
    length: int
    lines: int
    first: int
    last: int
    filter_at: int
    filter_size: int
    whole: bool


@dataclass(frozen=True, slots=True)
class About:
    """original: device and inode of the log that was sealed. size, lines: of it."""

    original: tuple[int, int]
    size: int
    lines: int
    first: int
    last: int


def filter_of(data: bytes, size: int) -> bytearray:
    """The filter of these words, in `size` bytes (a power of two)."""
    made = bytearray(size)
    lib.add_tokens(ffi.from_buffer("uint8_t[]", data), len(data), ffi.from_buffer("uint8_t[]", made), size)
    return made


def _filter_size(length: int) -> int:
    return max(64, 1 << ((length + 31) // 32 - 1).bit_length())


def write_block(read: Callable[[int], bytes], original: tuple[int, int], fd: int) -> About:
    """Compresses what `read` has until it has no more, and writes it to `fd`; it is on the disk on return. OSError
    where it can't be read or written, and then the file is not complete."""
    pack = zstandard.ZstdCompressor(level=LEVEL, write_content_size=True, write_checksum=True)
    frames: list[Frame] = []
    filters: list[bytearray] = []
    at = start = 0
    lines = b"\n"
    for lines in _portions(read):
        packed = pack.compress(lines)
        _write(fd, packed)
        made = filter_of(lines, _filter_size(len(lines)))
        frames.append(_row(lines, at, len(packed), start, len(made), sum(map(len, filters))))
        filters.append(made)
        at, start = at + len(packed), start + len(lines)
    about = About(
        original,
        start,
        sum(one.lines for one in frames) + (not lines.endswith(b"\n")),
        min((one.first for one in frames), default=NEVER),
        max((one.last for one in frames), default=FOREVER),
    )
    _write(fd, _index(about, frames, filters))
    os.fsync(fd)
    return about


def _portions(read: Callable[[int], bytes]) -> Iterator[bytes]:
    rest = b""
    while data := read(FRAME):
        rest += data
        end = rest.rfind(b"\n") + 1
        if len(rest) < FRAME or (not end and len(rest) < LONGEST_FRAME):
            continue
        end = end or len(rest)
        yield rest[:end]
        rest = rest[end:]
    if rest:
        yield rest


def _row(lines: bytes, at: int, size: int, start: int, filter_size: int, filter_at: int) -> Frame:
    first = parse_piece(lines[: lines.find(b"\n") + 1].rstrip(b"\n"))
    last = parse_piece(lines[lines.rfind(b"\n", 0, -1) + 1 :].rstrip(b"\n"))
    whole = lines.endswith(b"\n") and not has_pieces(lines)
    return Frame(
        at,
        size,
        start,
        len(lines),
        lines.count(b"\n"),
        first[0] if first and last else NEVER,
        last[0] if first and last else FOREVER,
        filter_at,
        filter_size,
        whole,
    )


def _index(about: About, frames: list[Frame], filters: list[bytearray]) -> bytes:
    rows = b"".join(
        _ROW.pack(f.at, f.size, f.start, f.length, f.lines, f.first, f.last, f.filter_at, f.filter_size, f.whole)
        for f in frames
    )
    head = (*about.original, len(frames), about.size, about.lines, about.first, about.last, _VERSION)
    unchecked = _TRAILER.pack(*head, 0, _MAGIC)
    checksum = zlib.crc32(unchecked[:_CHECK], zlib.crc32(rows))
    body = b"".join(filters) + rows + _TRAILER.pack(*head, checksum, _MAGIC)
    return _SKIP_HEAD.pack(_SKIPPABLE, len(body)) + body


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class Block:
    """A sealed log, open. ValueError where the file is none or is damaged."""

    __slots__ = ("_fd", "_filters", "_filters_at", "_unpack", "about", "frames")

    def __init__(self, fd: int) -> None:
        """fd: is the block's from now on, unless this raises."""
        self._fd = fd
        size = os.fstat(fd).st_size
        tail = os.pread(fd, _TRAILER.size, max(0, size - _TRAILER.size))
        if len(tail) != _TRAILER.size or not tail.endswith(_MAGIC):
            raise ValueError("it has no index")
        device, inode, count, length, lines, first, last, version, checksum, _ = _TRAILER.unpack(tail)
        if version != _VERSION:
            raise ValueError(f"its index is of version {version}, not {_VERSION}")
        rows_at = size - _TRAILER.size - count * _ROW.size
        rows = os.pread(fd, count * _ROW.size, rows_at) if rows_at >= 0 else b""
        if len(rows) != count * _ROW.size or zlib.crc32(tail[:_CHECK], zlib.crc32(rows)) != checksum:
            raise ValueError("its index is damaged")
        self.about = About((device, inode), length, lines, first, last)
        self.frames = [Frame(*row) for row in _ROW.iter_unpack(rows)]
        self._filters_at = rows_at - sum(frame.filter_size for frame in self.frames)
        self._filters: bytes | None = None
        self._unpack = zstandard.ZstdDecompressor()

    def read(self, frame: Frame) -> bytes:
        """Its lines. ValueError where they are damaged."""
        try:
            lines = self._unpack.decompress(os.pread(self._fd, frame.size, frame.at))
        except zstandard.ZstdError as error:
            raise ValueError(f"a frame is damaged: {error}") from None
        if len(lines) != frame.length:
            raise ValueError("a frame is damaged: its length is wrong")
        return lines

    def may_have(self, frame: Frame, tokens: Tokens) -> bool:
        """False: none of its lines has all these words."""
        if self._filters is None:
            size = sum(one.filter_size for one in self.frames)
            self._filters = os.pread(self._fd, size, self._filters_at)
        if not frame.whole:
            return True
        filters = self._filters[frame.filter_at : frame.filter_at + frame.filter_size]
        return all(filters[at] & bits == bits for at, bits in tokens.bits(frame.filter_size))

    def close(self) -> None:
        os.close(self._fd)


class Tokens:
    """Words that are looked for in filters."""

    __slots__ = ("_bits", "_words")

    def __init__(self, words: bytes) -> None:
        """words: whole ones, with anything between."""
        self._words = words
        self._bits: dict[int, list[tuple[int, int]]] = {}

    def bits(self, size: int) -> list[tuple[int, int]]:
        """(byte, bits) that are set in a filter of this size which has all of them."""
        if size not in self._bits:
            self._bits[size] = [(at, bits) for at, bits in enumerate(filter_of(self._words, size)) if bits]
        return self._bits[size]


class Unpacked:
    """Reads the lines of a damaged block, from its beginning as far as they can be had; then raises ValueError."""

    def __init__(self, fd: int, at: int = 0) -> None:
        self._fd = fd
        self._at = at

    def copy(self) -> Unpacked:
        return Unpacked(self._fd, self._at)

    def read(self, _: int = 0) -> bytes:
        """The next frame's, or what there is of it; nothing at the end."""
        stream, at, lines = zstandard.ZstdDecompressor().decompressobj(), self._at, b""
        try:
            while not stream.eof and (data := os.pread(self._fd, FRAME // 2, at)):
                at += len(data)
                lines += stream.decompress(data)
        except zstandard.ZstdError as error:
            if not lines:
                raise ValueError(str(error)) from None
            self._at = at  # where no frame begins: the next call says so
            return lines
        self._at = at - len(stream.unused_data)
        return lines


def sealed_lines(fd: int) -> tuple[tuple[int, int], int, Callable[[int], bytes]]:
    """Of a block that is read from its beginning: its original, the size of that, and what reads a frame with each
    call. Of a damaged one what can be had."""
    try:
        block = Block(fd)
    except ValueError:  # its size is not known
        return (0, 0), 1, Unpacked(fd).read
    frames = iter(block.frames)
    return block.about.original, block.about.size, lambda _: next((block.read(frame) for frame in frames), b"")
