"""A terminal: the WebSocket of a browser and that of the runtime's streaming server, with the bytes of each handed to
the other as they are. What they speak (v5.channel.k8s.io: a channel in the first byte of each message, the terminal's
size in one of them, the end of standard input in another) is between the page and the runtime."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from ..errors import FailedPrecondition, InvalidArgument, Unavailable
from ..http.server import Exchange
from ..http.streams import StreamReset
from ..http.transport import CHUNK, SocketTransport
from ..http.websocket import asked

ANSWER_S = 20.0
# How often it is asked whether who has opened it is still let in.
LOOK_S = 5.0
LINGER_S = 5.0
ASKED = ("sec-websocket-key", "sec-websocket-version", "sec-websocket-protocol")
TOLD = ("upgrade", "connection", "sec-websocket-accept", "sec-websocket-protocol")


def check_handshake(exchange: Exchange) -> None:
    """InvalidArgument where it is none."""
    if exchange.method != "GET" or not asked(exchange):
        raise InvalidArgument("a terminal is a WebSocket", hint="GET with Upgrade: websocket")
    if any(len([1 for found, _ in exchange.headers if found == name]) != 1 for name in ASKED):
        raise InvalidArgument(f"a WebSocket's handshake has {', '.join(ASKED)} once each")


async def relay(exchange: Exchange, place: dict[str, Any], admitted: Callable[[], Awaitable[bool]]) -> None:
    """Until one side ends it, or who has opened it is no longer admitted. Raises Unavailable before the upgrade."""
    try:
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_connection(place["host"], place["port"], limit=CHUNK)
    except (OSError, TimeoutError):
        raise Unavailable("the runtime's streaming server does not answer") from None
    try:
        answer = await _shake_hands(exchange, place["path"], reader, writer)
        transport = await exchange.take_over(answer)
        await _both_ways(transport, reader, writer, admitted)
    finally:
        writer.transport.abort()


async def _shake_hands(
    exchange: Exchange, path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bytes:
    head = [f"GET {path} HTTP/1.1", "Host: localhost", "Connection: Upgrade", "Upgrade: websocket"]
    head += [f"{name}: {exchange.header(name)}" for name in ASKED]
    writer.write("\r\n".join([*head, "", ""]).encode("latin-1"))
    try:
        async with asyncio.timeout(ANSWER_S):
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        raise Unavailable("the runtime's streaming server has not answered") from None
    if first.split(" ")[1:2] != ["101"]:
        raise FailedPrecondition(f"the runtime says {first[:100]}", hint="the container may have ended")
    kept = [line for line in lines if line.partition(":")[0].lower() in TOLD]
    return "\r\n".join(["HTTP/1.1 101 Switching Protocols", *kept, "", ""]).encode("latin-1")


async def _both_ways(
    transport: SocketTransport,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    admitted: Callable[[], Awaitable[bool]],
) -> None:
    async def to_runtime() -> None:
        while data := await transport.read():
            writer.write(data)
            await writer.drain()

    async def to_browser() -> None:
        while data := await reader.read(CHUNK):
            await transport.write(data)
        await transport.close(LINGER_S)

    async def look() -> None:
        while await admitted():
            await asyncio.sleep(LOOK_S)

    tasks = [asyncio.ensure_future(one()) for one in (to_runtime, to_browser, look)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError, OSError, StreamReset):
                await task
        await transport.close(0.1)
