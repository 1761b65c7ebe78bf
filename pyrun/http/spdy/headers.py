"""Header blocks: name and value pairs, compressed by one zlib stream a direction that begins with a dictionary.

The dictionary is the protocol's (SPDY/3, 2.6.10.1). A block is decompressed to at most LONGEST bytes: a few hundred
bytes of zlib can hold a megabyte, so the bound is on what comes out and not on what comes in."""

from __future__ import annotations

import zlib

from pyrun.http.spdy.errors import SpdyError

LONGEST = 32 * 1024  # bytes of a block, decompressed; ours need some 200
MOST = 64  # pairs in a block

_WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow "
    "authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get"
).split() + ["status", "200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin"]
_TAIL = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden"
    "404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,"
    "publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def _sized(text: bytes) -> bytes:
    return len(text).to_bytes(4, "big") + text


DICTIONARY = b"".join(_sized(word.encode()) for word in _WORDS) + _TAIL.encode()


class Packer:
    """The blocks that we send, in their order."""

    def __init__(self) -> None:
        self._zlib = zlib.compressobj(zdict=DICTIONARY)

    def pack(self, headers: dict[str, str]) -> bytes:
        plain = len(headers).to_bytes(4, "big")
        plain += b"".join(_sized(name.lower().encode()) + _sized(value.encode()) for name, value in headers.items())
        return self._zlib.compress(plain) + self._zlib.flush(zlib.Z_SYNC_FLUSH)


class Unpacker:
    """The blocks that we receive, every one of them and in their order, or the zlib stream is lost."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(zdict=DICTIONARY)

    def unpack(self, block: bytes) -> dict[str, str]:
        """Names in small letters. Raises SpdyError, after which the connection is of no use."""
        try:
            plain = self._zlib.decompress(block, LONGEST + 1)
        except zlib.error as error:
            raise SpdyError(f"a header block is no zlib data of this connection: {error}")
        if len(plain) > LONGEST or self._zlib.unconsumed_tail:
            raise SpdyError(f"a header block has more than {LONGEST} bytes")
        if self._zlib.eof:
            raise SpdyError("the zlib stream of the headers has ended")
        return _read_pairs(plain)


def _read_pairs(plain: bytes) -> dict[str, str]:
    """The first value counts where one name has several."""
    count, at = _read_size(plain, 0)
    if count > MOST:
        raise SpdyError(f"a header block has {count} pairs, more than {MOST}")
    found: dict[str, str] = {}
    for _ in range(count):
        name, at = _read_text(plain, at)
        name = name.lower()
        value, at = _read_text(plain, at)
        if not name or name in found:
            raise SpdyError("a header block has an empty or a repeated name")
        found[name] = value.partition("\0")[0]
    if at != len(plain):
        raise SpdyError("a header block goes on after its last pair")
    return found


def _read_size(plain: bytes, at: int) -> tuple[int, int]:
    if at + 4 > len(plain):
        raise SpdyError("a header block is cut off")
    return int.from_bytes(plain[at : at + 4], "big"), at + 4


def _read_text(plain: bytes, at: int) -> tuple[str, int]:
    size, at = _read_size(plain, at)
    if at + size > len(plain):
        raise SpdyError("a header block is cut off")
    try:
        return plain[at : at + size].decode(), at + size
    except UnicodeDecodeError:
        raise SpdyError("a header is no UTF-8")
