"""Frames, without any input or output: `Parser` makes them of bytes as these arrive, `pack_*` makes bytes of them.

A control frame is bounded and kept until it is whole; a data frame may have 16 MiB and is handed on piece by piece,
so the parser never holds more than one control frame. Frames that mean nothing to us (SETTINGS, WINDOW_UPDATE,
HEADERS) are checked and dropped, but the header block of a HEADERS has to go through zlib."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pyrun.http.spdy.errors import SpdyError
from pyrun.http.spdy.headers import Packer, Unpacker

VERSION = 3
SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY, HEADERS, WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
_SIZES = {
    RST_STREAM: ("RST_STREAM", 8),
    PING: ("PING", 4),
    GOAWAY: ("GOAWAY", 8),
    WINDOW_UPDATE: ("WINDOW_UPDATE", 8),
}
FLAG_FIN, FLAG_UNIDIRECTIONAL = 1, 2
LONGEST_CONTROL = 16 * 1024  # bytes, compressed; ours have some 100
LARGEST_ID = 0x7FFFFFFF

# Why a stream is reset, and a connection left.
PROTOCOL_ERROR, INVALID_STREAM, REFUSED_STREAM, CANCEL, INTERNAL_ERROR, STREAM_IN_USE = 1, 2, 3, 5, 6, 8
STREAM_ALREADY_CLOSED = 9
GOAWAY_OK, GOAWAY_PROTOCOL_ERROR = 0, 1


@dataclass(frozen=True, slots=True)
class Opened:
    """SYN_STREAM."""

    stream: int
    headers: dict[str, str]
    fin: bool


@dataclass(frozen=True, slots=True)
class Data:
    """A piece of a stream; fin: the peer sends no more of it."""

    stream: int
    data: bytes
    fin: bool


@dataclass(frozen=True, slots=True)
class Reset:
    """RST_STREAM."""

    stream: int
    status: int


@dataclass(frozen=True, slots=True)
class Ping:
    number: int


@dataclass(frozen=True, slots=True)
class Goaway:
    status: int


Frame = Opened | Data | Reset | Ping | Goaway


class Parser:
    """Feed it what arrives. After a SpdyError it is of no use."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._unpacker = Unpacker()
        self._stream = 0  # of the data frame that we are in
        self._left = 0  # bytes of it to come
        self._fin = False

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Whole control frames and pieces of data frames. Raises SpdyError."""
        self._kept += data
        at = 0
        try:
            while True:
                if self._left:
                    piece = bytes(self._kept[at : at + self._left])
                    if not piece:
                        return
                    at += len(piece)
                    self._left -= len(piece)
                    yield Data(self._stream, piece, self._fin and not self._left)
                    continue
                if len(self._kept) - at < 8:
                    return
                head = int.from_bytes(self._kept[at : at + 4], "big")
                flags, size = self._kept[at + 4], int.from_bytes(self._kept[at + 5 : at + 8], "big")
                if not head >> 31:
                    at += 8
                    self._stream, self._left, self._fin = head, size, bool(flags & FLAG_FIN)
                    if not size:
                        yield Data(head, b"", self._fin)
                    continue
                if size > LONGEST_CONTROL:
                    raise SpdyError(f"a control frame has {size} bytes, more than {LONGEST_CONTROL}")
                if head >> 16 & 0x7FFF != VERSION:
                    raise SpdyError(f"a control frame has version {head >> 16 & 0x7FFF}, not {VERSION}")
                if len(self._kept) - at < 8 + size:
                    return
                body = bytes(self._kept[at + 8 : at + 8 + size])
                at += 8 + size
                frame = self._control(head & 0xFFFF, flags, body)
                if frame is not None:
                    yield frame
        finally:
            del self._kept[:at]

    def _control(self, kind: int, flags: int, body: bytes) -> Frame | None:
        if kind == SYN_STREAM:
            if len(body) < 10:
                raise SpdyError("a SYN_STREAM is cut off")
            return Opened(_id(body, 0), self._unpacker.unpack(body[10:]), bool(flags & FLAG_FIN))
        if kind in (SYN_REPLY, HEADERS):  # for zlib's sake
            if len(body) < 4:
                raise SpdyError("a SYN_REPLY or HEADERS is cut off")
            self._unpacker.unpack(body[4:])
            return None
        if kind == SETTINGS:
            if len(body) < 4 or len(body) != 4 + 8 * _word(body, 0):
                raise SpdyError("a SETTINGS has another size than its entries")
            return None
        if kind in _SIZES:
            name, size = _SIZES[kind]
            if len(body) != size:
                raise SpdyError(f"a {name} has {len(body)} bytes, not {size}")
        if kind == RST_STREAM:
            return Reset(_id(body, 0), _word(body, 4))
        if kind == PING:
            return Ping(_word(body, 0))
        if kind == GOAWAY:
            return Goaway(_word(body, 4))
        return None  # a WINDOW_UPDATE; or unknown, which "must be ignored" (2.2.1)


def _word(body: bytes, at: int) -> int:
    return int.from_bytes(body[at : at + 4], "big")


def _id(body: bytes, at: int) -> int:
    return _word(body, at) & LARGEST_ID


def _pack_control(kind: int, flags: int, body: bytes) -> bytes:
    return (1 << 31 | VERSION << 16 | kind).to_bytes(4, "big") + (flags << 24 | len(body)).to_bytes(4, "big") + body


def pack_data(stream: int, data: bytes, fin: bool = False) -> bytes:
    """At most 16 MiB less one byte of data."""
    return stream.to_bytes(4, "big") + ((FLAG_FIN if fin else 0) << 24 | len(data)).to_bytes(4, "big") + data


def pack_open(stream: int, headers: dict[str, str], packer: Packer, fin: bool = False) -> bytes:
    body = stream.to_bytes(4, "big") + bytes(6) + packer.pack(headers)
    return _pack_control(SYN_STREAM, FLAG_FIN if fin else 0, body)


def pack_reply(stream: int, packer: Packer) -> bytes:
    return _pack_control(SYN_REPLY, 0, stream.to_bytes(4, "big") + packer.pack({}))


def pack_reset(stream: int, status: int) -> bytes:
    return _pack_control(RST_STREAM, 0, stream.to_bytes(4, "big") + status.to_bytes(4, "big"))


def pack_ping(number: int) -> bytes:
    return _pack_control(PING, 0, number.to_bytes(4, "big"))


def pack_goaway(last: int, status: int) -> bytes:
    return _pack_control(GOAWAY, 0, last.to_bytes(4, "big") + status.to_bytes(4, "big"))
