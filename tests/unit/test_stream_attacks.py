"""Clients that mean harm, or are broken: each is bounded in time and memory, and the next one is served."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import time
import tracemalloc

import pytest

from pyrun.cri.stream import tokens
from pyrun.cri.stream.server import Streams
from pyrun.cri.stream.tokens import Tokens
from pyrun.errors import ResourceExhausted
from pyrun.http import remotecommand
from pyrun.http.remotecommand import Wanted
from pyrun.http.spdy import frames
from pyrun.http.streams import FULL
from tests.support.streams.backend import Backend
from tests.support.streams.client import Refused, command, dial, exit_code, read_answer, spdy, websocket
from tests.support.streams.serving import ALL, OUT, run, serving, settle

V4 = "v4.channel.k8s.io"


async def check_served(streams: Streams) -> None:
    async with command(streams.exec("ctr", ("echo", "well"), OUT), stdout=True, stderr=True) as (_, s):
        assert await s["stdout"].read_all() == b"well\n"
        assert await exit_code(s) == 0


def test_a_token_is_good_once_and_for_its_verb() -> None:
    async def test() -> None:
        async with serving() as (streams, backend):
            url = streams.exec("ctr", ("true",), OUT)
            async with command(url, stdout=True, stderr=True) as (_, s):
                assert await exit_code(s) == 0
            other = streams.exec("ctr", ("true",), OUT).replace("/exec/", "/attach/")
            for wrong in (url, other, url[:-1], url + "x", f"{url}/..", url.replace("/exec/", "/exec//"), url[:-22]):
                with pytest.raises(Refused) as refused:
                    async with spdy(wrong, V4):
                        pass
                assert refused.value.status == 404
            with pytest.raises(Refused) as refused:
                async with spdy(streams.exec("ctr", ("true",), OUT), V4, method="PUT"):
                    pass
            assert refused.value.status == 405
            assert len(backend.commands) == 1

    run(test)


def test_tokens_expire_and_are_bounded() -> None:
    now = 0.0
    kept: Tokens[int] = Tokens(lambda: now)
    made = [kept.make(number) for number in range(tokens.MOST)]
    assert len(set(made)) == tokens.MOST and all(len(token) >= 22 for token in made)
    with pytest.raises(ResourceExhausted):
        kept.make(0)
    assert kept.take(made[5]) == 5 and kept.take(made[5]) is None
    now = tokens.TTL_S
    assert kept.take(made[6]) is None and len(kept) == 0
    kept.make(1)


def test_guessing_tokens_gets_nowhere() -> None:
    async def test() -> None:
        async with serving() as (streams, backend):
            streams.exec("ctr", ("true",), OUT)
            reader, writer, _ = await dial(streams.exec("ctr", ("true",), OUT))
            for number in range(2000):
                writer.write(f"POST /exec/{number:022d} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
                status, headers = await read_answer(reader)
                assert status == 404
                await reader.readexactly(int(dict(headers)["content-length"]))
            writer.close()
            assert backend.commands == []

    run(test)


def test_slow_heads_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with serving() as (streams, _):
            streams.server.head = 0.5
            slow = [await dial(streams.exec("ctr", ("true",), OUT)) for _ in range(50)]
            began = time.monotonic()
            for at in range(30):
                for _, writer, _ in slow:
                    writer.write(b"POST /exec/x HTTP/1.1\r\nA: "[at : at + 1] or b"a")
                await asyncio.sleep(0.02)
            for reader, writer, _ in slow:
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
                writer.close()
            assert time.monotonic() - began < 5
            await check_served(streams)

    run(test)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 100_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20_000 + b"\r\n", 431),
        (b"\x80\x03\x00\x01\x00\x00\x00\x0a" + bytes(100) + b"\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 404),
        (b"POST /exec/x HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
    ],
)
def test_heads_that_are_none(head: bytes, status: int) -> None:
    async def test() -> None:
        async with serving() as (streams, _):
            reader, writer, _ = await dial(streams.exec("ctr", ("true",), OUT))
            writer.write(head)
            assert (await read_answer(reader))[0] == status
            writer.close()
            await check_served(streams)

    run(test)


def test_ten_thousand_frames() -> None:
    async def test() -> None:
        async with serving() as (streams, _):
            async with command(streams.exec("ctr", ("cat",), ALL), stdin=True, stdout=True, stderr=True) as (client, s):
                many = b"".join(frames.pack_ping(2 * n + 1) for n in range(10_000))
                many += b"".join(frames._pack_control(frames.WINDOW_UPDATE, 0, bytes(8)) for _ in range(10_000))
                many += b"".join(frames.pack_data(n, b"nobody's") for n in range(1001, 11_001))
                many += b"".join(frames.pack_reset(n, 1) for n in range(1001, 11_001))
                await client.send(many)
                await client.until(lambda: len(client.pings) == 10_000)
                await s["stdin"].write(b"still", fin=True)
                assert await s["stdout"].read_all() == b"still"

    run(test)


def test_streams_are_bounded_and_resets_forget_them() -> None:
    async def test() -> None:
        async with serving() as (streams, _):
            async with spdy(streams.port_forward("pod"), "portforward.k8s.io") as client:
                many = [await client.open(streamtype="error", port="1", requestid=str(n)) for n in range(3000)]
                await client.send(frames.pack_ping(1))
                await client.until(lambda: client.pings and sum(stream.reset is None for stream in many) == 512)
                assert all(stream.reset in (None, frames.REFUSED_STREAM) for stream in many)
                for stream in many:
                    await client.send(frames.pack_reset(stream.number, frames.CANCEL))
                for n in range(2000):
                    one = await client.open(streamtype="error", port="1", requestid=f"again{n}")
                    await client.send(frames.pack_reset(one.number, frames.CANCEL))
                await client.send(frames.pack_ping(3))
                await client.until(lambda: client.pings == [1, 3])
                assert one.reset is None

    run(test)


@pytest.mark.parametrize(
    "bad",
    [
        frames._pack_control(frames.SYN_STREAM, 0, struct.pack(">IIH", 99, 0, 0) + b"no zlib"),
        b"\x80\x03\x00\x01\x00\xff\xff\xff",
        frames._pack_control(frames.PING, 0, b""),
        b"\x80\x02\x00\x01\x00\x00\x00\x00",
    ],
)
def test_a_broken_protocol_ends_the_connection_and_no_other(bad: bytes) -> None:
    async def test() -> None:
        async with serving() as (streams, backend):
            url = streams.exec("ctr", ("cat",), ALL)
            async with command(url, stdin=True, stdout=True, stderr=True) as (client, s):
                await s["stdin"].write(b"x")
                await s["stdout"].read_some(1)
                await client.send(bad)
                await client.until(lambda: client.goaway == frames.GOAWAY_PROTOCOL_ERROR)
                await settle(lambda: client.over)
            await settle(lambda: backend.closed == 1)
            await check_served(streams)

    run(test)


def test_ids_that_do_not_rise() -> None:
    async def test() -> None:
        async with serving() as (streams, _):
            async with command(streams.exec("ctr", ("cat",), ALL), stdin=True) as (client, _):
                await client.send(frames.pack_open(1, {"streamtype": "stdout"}, client.packer))
                await client.until(lambda: client.goaway == frames.GOAWAY_PROTOCOL_ERROR)

    run(test)


def test_streams_that_nobody_wants_and_data_after_the_end_are_reset() -> None:
    async def test() -> None:
        async with serving() as (streams, _):
            url = streams.exec("ctr", ("cat",), ALL)
            async with command(url, stdin=True, stdout=True, stderr=True) as (client, s):
                second = await client.open(streamtype="stdin")
                strange = await client.open(streamtype="core")
                await client.until(lambda: second.reset and strange.reset)
                await s["stdin"].write(b"x", fin=True)
                await s["stdout"].read_all()
                assert await exit_code(s) == 0

    run(test)


def test_a_client_that_opens_no_streams_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remotecommand, "CREATE_S", 0.3)

    async def test() -> None:
        async with serving() as (streams, backend):
            async with spdy(streams.exec("ctr", ("true",), OUT), V4) as client:
                await client.open(streamtype="error")
                await settle(lambda: client.over, 5)
            assert backend.commands == []

    run(test)


def test_a_client_that_reads_nothing_costs_little() -> None:
    async def test() -> None:
        async with serving() as (streams, backend):
            tracemalloc.start()
            async with command(streams.exec("ctr", ("yes",), OUT), stdout=True, stderr=True) as (client, s):
                await s["stdout"].read_some(1)
                client.reading.clear()
                await asyncio.sleep(0.5)
                grown, _ = tracemalloc.get_traced_memory()
                await asyncio.sleep(0.5)
                assert tracemalloc.get_traced_memory()[0] - grown < 1 << 20
                tracemalloc.stop()
            await settle(lambda: backend.closed == 1)

    run(test)


def test_a_full_standard_input_is_not_kept() -> None:
    """Nor does it hide that the program ends."""

    async def test() -> None:
        async with serving() as (streams, backend):
            wanted = Wanted(stdin=True, stdout=True, stderr=False, tty=False)
            async with command(streams.exec("ctr", ("sleep", "50"), wanted), stdin=True, stdout=True) as (_, s):
                sent = 0
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        while True:
                            await s["stdin"].write(bytes(65536))
                            sent += 65536
                assert 1 << 18 < sent < 64 << 20  # the sockets' buffers, an inbox and a pipe
                backend.commands[0].process.kill()
                assert await exit_code(s) == 137

    run(test)


def test_a_client_that_goes_while_standard_input_is_full() -> None:
    async def test() -> None:
        async with serving() as (streams, backend):
            wanted = Wanted(stdin=True, stdout=True, stderr=False, tty=False)
            async with command(streams.exec("ctr", ("sleep", "50"), wanted), stdin=True, stdout=True) as (_, s):
                await s["stdin"].write(bytes(FULL + 65536 + 100_000))
                await asyncio.sleep(0.3)
            await settle(lambda: backend.closed == 1)

    run(test)


def test_idle_clients_are_cut_off() -> None:
    async def test() -> None:
        async with serving() as (streams, backend):
            streams.server.idle = 0.5
            async with command(streams.exec("ctr", ("cat",), ALL), stdin=True, stdout=True, stderr=True) as (client, s):
                for _ in range(4):  # a ping is a sign of life
                    await asyncio.sleep(0.25)
                    await client.send(frames.pack_ping(1))
                assert not client.over
                await settle(lambda: client.over, 5)
            await settle(lambda: backend.closed == 1)

    run(test)


def test_connections_are_bounded() -> None:
    async def test() -> None:
        async with serving() as (streams, _):
            streams.server._most = 20
            url = streams.exec("ctr", ("true",), OUT)
            many = [await dial(url) for _ in range(30)]
            await settle(lambda: streams.server.connections() == 20)
            cut = 0
            for reader, writer, _ in many:
                try:
                    async with asyncio.timeout(0.05):
                        cut += await reader.read(1) == b""
                except ConnectionResetError:
                    cut += 1
                except TimeoutError:
                    pass
                writer.transport.abort()
            assert cut == 10
            await settle(lambda: streams.server.connections() == 0)
            await check_served(streams)

    run(test)


@pytest.mark.parametrize(
    "bad",
    [
        b"\x81\x85\0\0\0\0hello",  # text
        b"\x82\x05hello",  # not masked
        b"\x8f\x80\0\0\0\0",  # an opcode that is none
        b"\x89\xfe\x00\xff\0\0\0\0" + bytes(255),  # a ping too long
        b"\xf2\x81\0\0\0\0x",  # reserved bits
    ],
)
def test_broken_websockets(bad: bytes) -> None:
    async def test() -> None:
        async with serving() as (streams, backend):
            async with websocket(streams.exec("ctr", ("cat",), ALL), "v5.channel.k8s.io") as ws:
                await settle(lambda: bool(backend.commands))
                ws.writer.write(bad)
                await ws.read_all()
                assert ws.code in (1002, 1003)
            await settle(lambda: backend.closed == 1)
            await check_served(streams)

    run(test)


def test_a_websocket_message_without_end_is_not_kept() -> None:
    async def test() -> None:
        async with serving() as (streams, backend):
            async with websocket(streams.exec("ctr", ("wc", "-c"), ALL), "v5.channel.k8s.io") as ws:
                ws.writer.write(b"\x82\xff" + (1 << 40).to_bytes(8, "big") + bytes(4) + b"\0" + bytes(3_000_000))
                await ws.writer.drain()
                await asyncio.sleep(0.3)
            await settle(lambda: backend.closed == 1)

    run(test)


def test_half_a_frame_and_then_silence_or_a_reset() -> None:
    async def test() -> None:
        async with serving() as (streams, backend):
            for end in (b"\x80\x03\x00", b"\x80\x03\x00\x01\x00\x00\x10\x00abc", b"\0\0\0\3\0\1\0\0abc"):
                async with command(streams.exec("ctr", ("cat",), ALL), stdin=True, stdout=True, stderr=True) as (c, s):
                    await s["stdin"].write(b"x")
                    await s["stdout"].read_some(1)
                    await c.send(end)
            await settle(lambda: backend.closed == 3)

    run(test)


def test_urls_hold_128_bits() -> None:
    streams = Streams(Backend())
    urls = {streams.port_forward("pod") for _ in range(500)}
    assert len(urls) == 500 and all(len(url.rpartition("/")[2]) == 22 for url in urls)
