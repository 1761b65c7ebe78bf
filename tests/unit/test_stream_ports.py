"""Port-forward to real sockets: halves that are paired, ends that are kept apart, failures that stay with their
pair."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from wsproto.events import BytesMessage

from pyrun.http import portforward
from pyrun.http.spdy import frames
from pyrun.http.spdy.headers import Packer
from tests.support.streams.client import Spdy, Stream, spdy, websocket
from tests.support.streams.serving import run, serving, settle

PROTOCOL = "portforward.k8s.io"
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def listening(answer: Answer, host: str = "127.0.0.1") -> AsyncIterator[int]:
    server = await asyncio.start_server(answer, host, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.sleep(0.05)


async def pair(client: Spdy, port: int, name: str | None) -> tuple[Stream, Stream]:
    """(data, error)."""
    words = {"port": str(port)} | ({"requestid": name} if name is not None else {})
    error = await client.open_with({"streamtype": "error"} | words, fin=True)
    return await client.open_with({"streamtype": "data"} | words), error


def unused() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("named", [True, False])
def test_many_connections_over_one(host: str, named: bool) -> None:
    async def test() -> None:
        async with serving() as (streams, _), listening(echo, host) as port:
            async with spdy(streams.port_forward("pod"), PROTOCOL) as client:
                assert client.version == PROTOCOL
                pairs = [await pair(client, port, str(n) if named else None) for n in range(20)]
                for n, (data, _) in enumerate(pairs):
                    await data.write(b"%d." % n * 50_000, fin=True)
                for n, (data, error) in enumerate(pairs):
                    assert await data.read_all() == b"%d." % n * 50_000
                    assert data.ended and await error.read_all() == b""

    run(test)


def test_an_answer_that_comes_late_after_the_end_of_the_question() -> None:
    """Peers cut the other way a second after one has ended."""

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.read()
        await asyncio.sleep(1.5)
        writer.write(asked.upper())
        writer.close()

    async def test() -> None:
        async with serving() as (streams, _), listening(late) as port:
            async with spdy(streams.port_forward("pod"), PROTOCOL) as client:
                data, error = await pair(client, port, "0")
                await data.write(b"question", fin=True)
                assert await data.read_all() == b"QUESTION"
                assert await error.read_all() == b""

    run(test)


def test_a_client_that_goes_on_after_the_servers_end() -> None:
    got = bytearray()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")
        writer.write_eof()
        got.extend(await reader.read())
        writer.close()

    async def test() -> None:
        async with serving() as (streams, _), listening(deaf) as port:
            async with spdy(streams.port_forward("pod"), PROTOCOL) as client:
                data, _ = await pair(client, port, "0")
                assert await data.read_all() == b"bye"
                await asyncio.sleep(1.2)
                await data.write(b"still here", fin=True)
                await settle(lambda: bytes(got) == b"still here")

    run(test)


def test_a_port_where_nobody_listens_fails_its_pair_alone() -> None:
    async def test() -> None:
        async with serving() as (streams, _), listening(echo) as port:
            async with spdy(streams.port_forward("web1"), PROTOCOL) as client:
                living, _ = await pair(client, port, "0")
                closed = unused()
                data, error = await pair(client, closed, "1")
                text = (await error.read_all()).decode()
                assert text == f"error forwarding port {closed} to pod web1: connect to 127.0.0.1: connection refused"
                await data.read_all()
                assert data.reset is not None
                await living.write(b"alive", fin=True)
                assert await living.read_all() == b"alive"

    run(test)


def test_a_reset_by_the_program_is_no_error_of_the_forward() -> None:
    """k8s#74551: kubectl ends all its forwards when it reads anything on an error stream."""

    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async def test() -> None:
        async with serving() as (streams, _), listening(rude) as port:
            async with spdy(streams.port_forward("pod"), PROTOCOL) as client:
                for n in range(3):
                    data, error = await pair(client, port, str(n))
                    await data.write(b"x")
                    await data.read_all()
                    assert data.reset is not None
                    assert await error.read_all() == b"" and error.ended

    run(test)


def test_a_client_that_resets_one_stream_ends_one_connection() -> None:
    ended: list[int] = []

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await echo(reader, writer)
        ended.append(1)

    async def test() -> None:
        async with serving() as (streams, _), listening(count) as port:
            async with spdy(streams.port_forward("pod"), PROTOCOL) as client:
                first, second = (await pair(client, port, "0"))[0], (await pair(client, port, "1"))[0]
                for data in (first, second):
                    await data.write(b"x")
                    await data.read_some(1)
                await client.send(frames.pack_reset(first.number, frames.CANCEL))
                await settle(lambda: len(ended) == 1)
                await second.write(b"y", fin=True)
                assert await second.read_all() == b"xy"

    run(test)


def test_one_slow_port_and_a_client_that_goes() -> None:
    begun: list[int] = []
    ended: list[int] = []

    async def stuck(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begun.append(1)
        await asyncio.sleep(0.5)
        with contextlib.suppress(OSError):
            await reader.read()
        writer.close()
        ended.append(1)

    async def test() -> None:
        async with serving() as (streams, _), listening(stuck) as port:
            async with spdy(streams.port_forward("pod"), PROTOCOL) as client:
                for n in range(5):
                    data, _ = await pair(client, port, str(n))
                    await data.write(bytes(100_000))
                await settle(lambda: len(begun) == 5)
            await settle(lambda: len(ended) == 5)

    run(test)


@pytest.mark.parametrize("port", ["0", "65536", "-1", "80x", "", "99999999999999999999", "٣"])
def test_ports_that_are_none(port: str) -> None:
    async def test() -> None:
        async with serving() as (streams, _):
            async with spdy(streams.port_forward("pod"), PROTOCOL) as client:
                stream = await client.open(streamtype="data", port=port, requestid="0")
                await stream.read_all()
                assert stream.reset == frames.REFUSED_STREAM

    run(test)


def test_half_a_pair_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portforward, "CREATE_S", 0.2)

    async def test() -> None:
        async with serving() as (streams, _):
            async with spdy(streams.port_forward("pod"), PROTOCOL) as client:
                error = await client.open(streamtype="error", port="80", requestid="0")
                await error.read_all()
                assert error.reset == frames.CANCEL

    run(test)


def test_a_pod_that_is_gone() -> None:
    async def test() -> None:
        async with serving() as (streams, _):
            async with spdy(streams.port_forward("missing"), PROTOCOL) as client:
                _, error = await pair(client, 80, "0")
                assert b"pod missing: not found" in await error.read_all()

    run(test)


def test_spdy_inside_a_websocket() -> None:
    async def test() -> None:
        async with serving() as (streams, _), listening(echo) as port:
            async with websocket(streams.port_forward("pod"), "SPDY/3.1+portforward.k8s.io") as ws:
                packer = Packer()
                words = {"port": str(port), "requestid": "0"}
                sent = frames.pack_open(1, {"streamtype": "error", **words}, packer, fin=True)
                sent += frames.pack_open(3, {"streamtype": "data", **words}, packer)
                sent += frames.pack_data(3, b"tunnelled", fin=True) + frames.pack_ping(1)
                for at in range(0, len(sent), 7):  # the borders of messages mean nothing
                    await ws.send(sent[at], sent[at + 1 : at + 7])
                parser, found = frames.Parser(), b""
                async with asyncio.timeout(10):
                    while b"tunnelled" not in found:
                        ws.ws.receive_data(await ws.reader.read(65536))
                        for event in ws.ws.events():
                            assert isinstance(event, BytesMessage)
                            for frame in parser.feed(bytes(event.data)):
                                found += frame.data if isinstance(frame, frames.Data) else b""

    run(test)
