"""Clients of the streaming server, as bare as a test needs them: SPDY by our frames, WebSocket by wsproto, raw
sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, RejectConnection, RejectData, Request

from pyrun.http.spdy import frames
from pyrun.http.spdy.headers import Packer


class Refused(Exception):
    """The answer to the handshake: status, headers in small letters, body."""

    def __init__(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        super().__init__(f"{status} {body!r}")
        self.status = status
        self.headers = headers
        self.body = body


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, list[tuple[str, str]]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    lines = head.strip().split("\r\n")
    pairs = [line.split(": ", 1) for line in lines[1:]]
    return int(lines[0].split()[1]), [(name.lower(), value) for name, value in pairs]


class Stream:
    def __init__(self, client: Spdy, number: int) -> None:
        self.number = number
        self.data = bytearray()
        self.ended = False
        self.reset: int | None = None
        self._client = client

    async def write(self, data: bytes, fin: bool = False) -> None:
        await self._client.send(frames.pack_data(self.number, data, fin))

    async def read_all(self) -> bytes:
        """To its end, or its reset."""
        await self._client.until(lambda: self.ended or self.reset is not None)
        return bytes(self.data)

    async def read_some(self, size: int) -> bytes:
        await self._client.until(lambda: len(self.data) >= size or self.ended or self.reset is not None)
        return bytes(self.data)


class Spdy:
    """One connection; it reads all the time unless `reading` is cleared."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, version: str | None) -> None:
        self.reader = reader
        self.writer = writer
        self.version = version
        self.packer = Packer()
        self.streams: dict[int, Stream] = {}
        self.pings: list[int] = []
        self.goaway: int | None = None
        self.over = False
        self.reading = asyncio.Event()
        self.reading.set()
        self._next = 1
        self._news = asyncio.Event()
        self._task = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        parser = frames.Parser()
        with contextlib.suppress(OSError):
            while True:
                await self.reading.wait()
                data = await self.reader.read(65536)
                if not data:
                    break
                for frame in parser.feed(data):
                    self._take(frame)
                self._news.set()
        self.over = True
        for stream in self.streams.values():
            stream.reset = -1 if not stream.ended and stream.reset is None else stream.reset
        self._news.set()

    def _take(self, frame: frames.Frame) -> None:
        match frame:
            case frames.Data():
                self.streams[frame.stream].data += frame.data
                self.streams[frame.stream].ended |= frame.fin
            case frames.Reset():
                self.streams[frame.stream].reset = frame.status
            case frames.Ping():
                self.pings.append(frame.number)
            case frames.Goaway():
                self.goaway = frame.status

    async def until(self, true: Any, seconds: float = 20.0) -> None:
        async with asyncio.timeout(seconds):
            while not true():
                assert not self.over, "the server has hung up"
                self._news.clear()
                await self._news.wait()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def open(self, **headers: str) -> Stream:
        return await self.open_with(headers)

    async def open_with(self, headers: dict[str, str], fin: bool = False) -> Stream:
        stream = Stream(self, self._next)
        self.streams[self._next] = stream
        self._next += 2
        await self.send(frames.pack_open(stream.number, headers, self.packer, fin))
        return stream

    async def close(self) -> None:
        self.writer.transport.abort()
        self._task.cancel()
        await asyncio.wait([self._task])


async def dial(url: str, tls: ssl.SSLContext | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, str]:
    """By TLS where the URL says https; whoever that is, where no context is given."""
    parts = urlsplit(url)
    tls = (tls or ssl._create_unverified_context()) if parts.scheme == "https" else None
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=tls)
    return reader, writer, f"{parts.path}?{parts.query}" if parts.query else parts.path


@contextlib.asynccontextmanager
async def spdy(
    url: str, *versions: str, method: str = "POST", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Spdy]:
    """Raises Refused."""
    reader, writer, path = await dial(url, tls)
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: Upgrade", "Upgrade: SPDY/3.1", "Content-Length: 0"]
    lines += [f"X-Stream-Protocol-Version: {version}" for version in versions]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    async with asyncio.timeout(10):
        status, headers = await read_answer(reader)
        if status != 101:
            body = await reader.read(int(dict(headers).get("content-length", "0")))
            writer.close()
            raise Refused(status, headers, body)
    client = Spdy(reader, writer, dict(headers).get("x-stream-protocol-version"))
    try:
        yield client
    finally:
        await client.close()


@contextlib.asynccontextmanager
async def command(
    url: str, version: str | None = "v4.channel.k8s.io", tls: ssl.SSLContext | None = None, **kinds: bool
) -> AsyncIterator[tuple[Spdy, dict[str, Stream]]]:
    """The streams of an exec or attach: error, and those of kinds that are true."""
    async with spdy(url, *([version] if version else []), tls=tls) as client:
        streams = {name: await client.open(streamtype=name) for name in ("error", *kinds) if kinds.get(name, True)}
        yield client, streams


async def exit_code(streams: dict[str, Stream]) -> int:
    """From v4's error stream."""
    status = json.loads(await streams["error"].read_all())
    if status["status"] == "Success":
        return 0
    return next(
        (int(cause["message"]) for cause in status["details"]["causes"] if cause.get("reason") == "ExitCode"), -1
    )


class WebSocket:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ws: WSConnection) -> None:
        self.reader = reader
        self.writer = writer
        self.ws = ws
        self.channels: dict[int, bytearray] = {}
        self.code: int | None = None

    async def send(self, channel: int, data: bytes) -> None:
        self.writer.write(self.ws.send(BytesMessage(data=bytes((channel,)) + data)))
        await self.writer.drain()

    async def read_all(self) -> dict[int, bytes]:
        """Until the server closes; what each channel had."""
        message = b""
        async with asyncio.timeout(20):
            while self.code is None:
                data = await self.reader.read(65536)
                if not data:
                    break
                self.ws.receive_data(data)
                for event in self.ws.events():
                    if isinstance(event, BytesMessage):
                        message += event.data
                        if event.message_finished:
                            self.channels.setdefault(message[0], bytearray()).extend(message[1:])
                            message = b""
                    elif isinstance(event, CloseConnection):
                        self.code = event.code
                        self.writer.write(self.ws.send(event.response()))
        return {channel: bytes(data) for channel, data in self.channels.items()}


@contextlib.asynccontextmanager
async def websocket(
    url: str, *protocols: str, tls: ssl.SSLContext | None = None, token: str = ""
) -> AsyncIterator[WebSocket]:
    """token: sent as a bearer's. Raises Refused."""
    reader, writer, path = await dial(url, tls)
    ws = WSConnection(ConnectionType.CLIENT)
    bearer = [(b"Authorization", f"Bearer {token}".encode())] if token else []
    writer.write(ws.send(Request(host="x", target=path, subprotocols=list(protocols), extra_headers=bearer)))
    status, body, accepted = 0, b"", False
    try:
        async with asyncio.timeout(10):
            while not accepted:
                data = await reader.read(65536)
                ws.receive_data(data or None)
                for event in ws.events():
                    if isinstance(event, AcceptConnection):
                        assert event.subprotocol == protocols[0] or event.subprotocol in protocols
                        accepted = True
                        break
                    if isinstance(event, RejectConnection):
                        status = event.status_code
                    if isinstance(event, RejectData):
                        body += event.data
                        if event.body_finished:
                            raise Refused(status, [], body)
        yield WebSocket(reader, writer, ws)
    finally:
        writer.transport.abort()
