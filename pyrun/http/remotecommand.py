"""exec and attach on the wire: the client's streams for stdin, stdout, stderr, the terminal's size and the outcome.

Over SPDY each is a stream that says what it is in its `streamtype`; all of them have CREATE_S to come. Over WebSocket
each is a channel, the first byte of every message; v5 can also end one, which stdin needs. Either way the outcome is
the last thing that the client is told, and then it hangs up: a side that closes first may cut off what is still on
its way."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass

from pyrun.http import websocket
from pyrun.http.server import Exchange
from pyrun.http.spdy import frames
from pyrun.http.spdy.connection import Connection, SpdyStream
from pyrun.http.spdy.errors import SpdyError
from pyrun.http.status import Outcome
from pyrun.http.streams import Inbox, Room, Stream, StreamReset
from pyrun.http.transport import Transport

SPDY = "SPDY/3.1"
VERSIONS = ("v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
CHANNELS = ("v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io")
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
NAMES = {"stdin": STDIN, "stdout": STDOUT, "stderr": STDERR, "error": ERROR, "resize": RESIZE}
CREATE_S = 30.0
LINGER_S = 60.0  # for a client that writes what it got to a slow place
MOST_STREAMS = 8
LONGEST_SIZE = 1024  # bytes of a terminal's size


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which streams the command has. With tty there is no stderr."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool

    def channels(self, resize: bool) -> set[int]:
        wanted = {STDIN: self.stdin, STDOUT: self.stdout, STDERR: self.stderr, ERROR: True, RESIZE: self.tty and resize}
        return {channel for channel, is_wanted in wanted.items() if is_wanted}


class Session:
    """A client whose streams are all there. `run` reads from it and comes back when it has gone; `finish` ends it."""

    def __init__(
        self,
        streams: dict[int, Stream],
        gone: asyncio.Task[None],
        transport: Transport | websocket.WebSocket,
        plain: bool,
    ):
        self.stdin = streams.get(STDIN)
        self.stdout = streams.get(STDOUT)
        self.stderr = streams.get(STDERR)
        self.gone = gone
        self._error = streams[ERROR]
        self._resize = streams.get(RESIZE)
        self._transport = transport
        self._plain = plain

    async def sizes(self) -> AsyncIterator[tuple[int, int]]:
        """(columns, rows), as the client's terminal changes. What is no size is passed over."""
        if self._resize is None:
            return
        text = ""
        while data := await self._resize.read():
            text += data.decode("utf-8", "replace")
            while text := text.lstrip():
                try:
                    size, used = json.JSONDecoder().raw_decode(text)
                except (ValueError, RecursionError):
                    if len(text) > LONGEST_SIZE:
                        return
                    break
                text = text[used:]
                width, height = (size.get("Width"), size.get("Height")) if isinstance(size, dict) else (None, None)
                if type(width) is int and type(height) is int and 0 <= width <= 65535 and 0 <= height <= 65535:
                    yield width, height

    async def finish(self, outcome: Outcome) -> None:
        """Tells the outcome, ends every stream and waits for the client to hang up. Never raises."""
        for stream in (self.stdin, self._resize):
            if stream is not None:
                stream.drop()
        try:
            if not self._plain:
                await self._error.write(outcome.json())
            elif not outcome.fine:
                await self._error.write(outcome.text().encode())
            for stream in (self.stdout, self.stderr, self._resize, self._error):
                if stream is not None:
                    await stream.close()
        except StreamReset:
            pass
        if isinstance(self._transport, websocket.WebSocket):
            await self._transport.close_politely(self.gone, LINGER_S)
        else:
            await asyncio.wait([self.gone], timeout=LINGER_S)

    async def end(self) -> None:
        self.gone.cancel()
        await asyncio.wait([self.gone])
        await self._transport.close(0.5)


async def open_session(exchange: Exchange, wanted: Wanted) -> Session | None:
    """None when the client was refused, or has not opened what it asked for in time. Raises Gone."""
    if websocket.asked(exchange):
        accepted = await websocket.accept(exchange, CHANNELS)
        return await _open_channels(*accepted, wanted) if accepted else None
    version = await choose_version(exchange, VERSIONS)
    if version is None:
        return None
    transport = await exchange.upgrade(
        (("Connection", "Upgrade"), ("Upgrade", SPDY), *((("X-Stream-Protocol-Version", version),) if version else ()))
    )
    return await _open_streams(transport, version or VERSIONS[-1], wanted)


async def choose_version(exchange: Exchange, ours: tuple[str, ...]) -> str | None:
    """The first of the client's that is ours; "" where it names none; None after a refusal that names ours."""
    if (exchange.header("upgrade") or "").lower() != SPDY.lower() or "upgrade" not in [
        word.lower() for word in exchange.listed("connection")
    ]:
        await exchange.respond(400, f"upgrade to {SPDY} or websocket: this is no plain request\n")
        return None
    offered = exchange.listed("x-stream-protocol-version")
    if not offered:
        return ""
    chosen = next((name for name in offered if name in ours), None)
    if chosen is None:
        accepted = tuple(("X-Accepted-Stream-Protocol-Versions", name) for name in ours)
        await exchange.respond(
            403, f"none of {', '.join(offered)} is supported; supported are {', '.join(ours)}\n", headers=accepted
        )
    return chosen


async def _open_streams(transport: Transport, version: str, wanted: Wanted) -> Session | None:
    """Over SPDY. A stream that nobody wanted, or a second one of a kind, is reset."""
    missing = wanted.channels(resize=version in VERSIONS[:2])
    found: dict[int, Stream] = {}
    unwanted: set[asyncio.Task[None]] = set()
    complete = asyncio.Event()

    def opened(stream: SpdyStream) -> None:
        channel = NAMES.get(stream.headers.get("streamtype", ""))
        if channel not in missing:
            task = asyncio.ensure_future(stream.reset(frames.REFUSED_STREAM))
            unwanted.add(task)
            task.add_done_callback(unwanted.discard)
            return
        missing.discard(channel)
        found[channel] = stream
        if channel in (STDOUT, STDERR, ERROR):
            stream.inbox.drop()
        if not missing:
            complete.set()

    gone = asyncio.ensure_future(_quietly(Connection(transport, MOST_STREAMS, opened).run()))
    await _first_of(complete, gone, CREATE_S)
    if missing:
        gone.cancel()
        await asyncio.wait([gone])
        await transport.close(0.5)
        return None
    return Session(found, gone, transport, plain=version != VERSIONS[0])


async def _quietly(run: Awaitable[None]) -> None:
    with contextlib.suppress(SpdyError, StreamReset):
        await run


async def _first_of(event: asyncio.Event, task: asyncio.Task[None], seconds: float) -> None:
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait([waiting, task], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


class Channel:
    """One of a WebSocket's."""

    def __init__(self, number: int, websocket: websocket.WebSocket, room: Room) -> None:
        self.number = number
        self.inbox = Inbox(room)
        self._websocket = websocket
        self._closed = False

    async def read(self) -> bytes:
        return await self.inbox.get()

    def drop(self) -> None:
        self.inbox.drop()

    async def write(self, data: bytes) -> None:
        if self._closed:
            raise StreamReset(f"channel {self.number} is closed")
        await self._websocket.send(bytes((self.number,)) + data)

    async def close(self) -> None:
        """The protocol has no word for it from our side: the connection's end is the channels'."""
        self._closed = True

    async def reset(self) -> None:
        self._closed = True
        self.inbox.end(f"channel {self.number} was reset")
        self.inbox.drop()


async def _open_channels(socket: websocket.WebSocket, version: str, wanted: Wanted) -> Session | None:
    room = Room()
    channels = {number: Channel(number, socket, room) for number in wanted.channels(resize=True)}
    for number in channels:
        if number not in (STDIN, RESIZE):
            channels[number].inbox.drop()
    try:  # an empty message: clients wait for a first one before they send
        first = min((number for number in channels if number in (STDOUT, STDERR)), default=ERROR)
        await channels[first].write(b"")
    except StreamReset:
        pass
    gone = asyncio.ensure_future(_quietly(_read_channels(socket, channels, version == CHANNELS[0], room)))
    streams: dict[int, Stream] = dict(channels)
    return Session(streams, gone, socket, plain=version == CHANNELS[-1])


async def _read_channels(
    socket: websocket.WebSocket, channels: dict[int, Channel], can_close: bool, room: Room
) -> None:
    """Until the peer goes."""
    number = None
    try:
        while (piece := await socket.receive()) is not None:
            data = piece.data
            if piece.first or number is None:
                if not data:
                    number = None
                    continue
                number, data = data[0], data[1:]
            if number == CLOSE and can_close:
                if data and (channel := channels.get(data[0])) is not None:
                    channel.inbox.end()
            elif (channel := channels.get(number)) is not None:
                channel.inbox.put(data)
            if piece.last:
                number = None
            while not room.free():
                await room.wait()
                if not room.free() and socket.gone():
                    return
    finally:
        for channel in channels.values():
            channel.inbox.end("the peer has gone")
