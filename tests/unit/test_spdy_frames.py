"""SPDY's frames: what we pack is parsed again however it is cut, and hostile bytes end in SpdyError, bounded."""

from __future__ import annotations

import hashlib
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrun.http.spdy import frames, headers
from pyrun.http.spdy.errors import SpdyError

HEADERS = {"streamtype": "data", "port": "8080", "requestid": "0"}


def parse(data: bytes, cut: int = 1 << 20) -> list[frames.Frame]:
    parser = frames.Parser()
    return [frame for at in range(0, len(data), cut) for frame in parser.feed(data[at : at + cut])]


def test_dictionary_is_the_protocols() -> None:
    assert len(headers.DICTIONARY) == 1423
    assert hashlib.sha256(headers.DICTIONARY).hexdigest().startswith("51d27341373f923f")


@pytest.mark.parametrize("cut", [1, 7, 8, 9, 1 << 20])
def test_what_is_packed_is_parsed(cut: int) -> None:
    packer = headers.Packer()
    sent = frames.pack_open(1, HEADERS, packer) + frames.pack_open(3, {"streamtype": "error"}, packer, fin=True)
    sent += frames.pack_data(1, b"hello") + frames.pack_data(1, b"", fin=True) + frames.pack_reset(3, 5)
    sent += frames.pack_reply(5, packer) + frames.pack_ping(7) + frames.pack_goaway(3, 0)
    found = parse(sent, cut)
    assert found[0] == frames.Opened(1, HEADERS, False)
    assert found[1] == frames.Opened(3, {"streamtype": "error"}, True)
    assert b"".join(f.data for f in found if isinstance(f, frames.Data)) == b"hello"
    assert found[-4:] == [frames.Data(1, b"", True), frames.Reset(3, 5), frames.Ping(7), frames.Goaway(0)]


def test_frames_without_a_meaning_are_passed_over() -> None:
    window = frames._pack_control(frames.WINDOW_UPDATE, 0, bytes(8))
    settings = frames._pack_control(frames.SETTINGS, 0, b"\0\0\0\1" + bytes(8))
    assert parse(window + settings + frames._pack_control(77, 0, b"?") + frames.pack_ping(1)) == [frames.Ping(1)]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (frames._pack_control(1, 0, bytes(10) + b"not zlib"), "no zlib data"),
        (frames._pack_control(1, 0, bytes(9)), "cut off"),
        (frames._pack_control(3, 0, bytes(7)), "RST_STREAM has 7"),
        (frames._pack_control(4, 0, b"\xff\xff\xff\xff"), "SETTINGS"),
        (b"\x80\x02\x00\x06\x00\x00\x00\x04\x00\x00\x00\x01", "version 2"),
        (b"\x80\x03\x00\x01\x00\xff\xff\xff", "16777215 bytes"),
    ],
)
def test_what_breaks_the_protocol(data: bytes, words: str) -> None:
    with pytest.raises(SpdyError, match=words):
        parse(data)


def block(plain: bytes) -> bytes:
    packer = zlib.compressobj(zdict=headers.DICTIONARY)
    return packer.compress(plain) + packer.flush(zlib.Z_SYNC_FLUSH)


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        (bytes(10_000_000), "more than 32768 bytes"),
        (b"\xff\xff\xff\xff", "4294967295 pairs"),
        (b"\0\0\0\1\0\0\0\x09name", "cut off"),
        (b"\0\0\0\1\0\0\0\0\0\0\0\0", "empty or a repeated name"),
        (b"\0\0\0\1\0\0\0\1\xff\0\0\0\0", "no UTF-8"),
        (b"\0\0\0\0more", "after its last pair"),
        (b"", "cut off"),
    ],
)
def test_header_blocks_that_lie(plain: bytes, words: str) -> None:
    packed = block(plain)
    tracemalloc.start()
    try:
        with pytest.raises(SpdyError, match=words):
            headers.Unpacker().unpack(packed)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=300), st.integers(1, 50))
def test_any_bytes_are_parsed_or_refused(data: bytes, cut: int) -> None:
    try:
        parse(data, cut)
    except SpdyError:
        pass


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 255), st.binary(max_size=60)), max_size=8))
def test_any_control_frames_are_parsed_or_refused(sent: list[tuple[int, int, bytes]]) -> None:
    try:
        parse(b"".join(frames._pack_control(*frame) for frame in sent))
    except SpdyError:
        pass


def test_a_long_data_frame_is_handed_on_in_pieces() -> None:
    """16 MiB less one byte are promised; nothing waits for them."""
    parser = frames.Parser()
    assert list(parser.feed(b"\0\0\0\1\1\xff\xff\xff" + b"x" * 100)) == [frames.Data(1, b"x" * 100, False)]
    assert list(parser.feed(b"y" * 10)) == [frames.Data(1, b"y" * 10, False)]
