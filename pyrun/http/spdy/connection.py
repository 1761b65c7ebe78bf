"""The server's side of a SPDY connection: the streams that a client opens, each with an inbox.

One task reads frames (`run`); anybody writes. Streams are bounded in number, ids must rise, and a stream that both
sides have ended is forgotten at once. An error of the protocol ends the connection with GOAWAY, one of a stream only
that."""

from __future__ import annotations

from collections.abc import Callable

from pyrun.http.spdy import frames
from pyrun.http.spdy.errors import SpdyError
from pyrun.http.spdy.headers import Packer
from pyrun.http.streams import Inbox, Room, StreamReset
from pyrun.http.transport import Transport

PIECE = 64 * 1024  # bytes of ours in a frame


class SpdyStream:
    """One stream of a client's. headers: names in small letters."""

    def __init__(self, connection: Connection, number: int, headers: dict[str, str]) -> None:
        self.number = number
        self.headers = headers
        self.inbox = Inbox(connection.room)
        self._connection = connection
        self._closed = False  # our side

    async def read(self) -> bytes:
        return await self.inbox.get()

    def drop(self) -> None:
        self.inbox.drop()

    async def write(self, data: bytes) -> None:
        for at in range(0, len(data), PIECE):
            if self._closed:
                raise StreamReset(f"stream {self.number} is closed")
            await self._connection.send(frames.pack_data(self.number, data[at : at + PIECE]))

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await self._try(frames.pack_data(self.number, b"", fin=True))
            self._connection.settle(self)

    async def reset(self, status: int = frames.CANCEL) -> None:
        known = self._connection.forget(self)
        self._closed = True
        self.inbox.end(f"stream {self.number} was reset")
        self.inbox.drop()
        if known:
            await self._try(frames.pack_reset(self.number, status))

    async def _try(self, frame: bytes) -> None:
        try:
            await self._connection.send(frame)
        except StreamReset:
            pass

    @property
    def closed(self) -> bool:
        """By both sides."""
        return self._closed and self.inbox.ended

    def lost(self, why: str) -> None:
        """The peer has reset it, or has gone."""
        self._closed = True
        self.inbox.end(why)


class Connection:
    """most: streams at a time. opened: told of each stream, before any of its data; what it raises ends the
    connection."""

    def __init__(self, transport: Transport, most: int, opened: Callable[[SpdyStream], None]) -> None:
        self.room = Room()
        self._transport = transport
        self._most = most
        self._opened = opened
        self._streams: dict[int, SpdyStream] = {}
        self._last = 0
        self._packer = Packer()

    async def send(self, frame: bytes) -> None:
        await self._transport.write(frame)

    def forget(self, stream: SpdyStream) -> bool:
        return self._streams.pop(stream.number, None) is not None

    def settle(self, stream: SpdyStream) -> None:
        if stream.closed:
            self.forget(stream)

    async def run(self) -> None:
        """Until the peer goes. Raises SpdyError where it breaks the protocol. All streams have ended then."""
        parser = frames.Parser()
        why = "the peer has gone"
        try:
            while data := await self._transport.read():
                for frame in parser.feed(data):
                    if isinstance(frame, frames.Goaway):
                        return
                    await self._take(frame)
                while not self.room.free():
                    await self.room.wait()
                    if not self.room.free() and self._transport.gone():
                        return
        except SpdyError as error:
            why = error.text
            await self._say_goaway(frames.GOAWAY_PROTOCOL_ERROR)
            raise
        except StreamReset:
            pass
        finally:
            for stream in list(self._streams.values()):
                stream.lost(why)
            self._streams.clear()

    async def _say_goaway(self, status: int) -> None:
        try:
            await self.send(frames.pack_goaway(self._last, status))
        except StreamReset:
            pass

    async def _take(self, frame: frames.Frame) -> None:
        match frame:
            case frames.Data():
                await self._data(frame)
            case frames.Opened():
                await self._open(frame)
            case frames.Reset():
                if (stream := self._streams.pop(frame.stream, None)) is not None:
                    stream.lost(f"the peer has reset stream {frame.stream} (status {frame.status})")
            case frames.Ping():
                if frame.number & 1:  # the client's own; even ones would be answers to ours
                    await self.send(frames.pack_ping(frame.number))

    async def _data(self, frame: frames.Data) -> None:
        stream = self._streams.get(frame.stream)
        if stream is None:  # reset by us while this was under way, or never there
            return
        if stream.inbox.ended:
            await stream.reset(frames.STREAM_ALREADY_CLOSED)
            return
        stream.inbox.put(frame.data)
        if frame.fin:
            stream.inbox.end()
            self.settle(stream)

    async def _open(self, frame: frames.Opened) -> None:
        if not frame.stream & 1 or frame.stream <= self._last:
            raise SpdyError(f"stream {frame.stream} is opened after {self._last}")
        self._last = frame.stream
        if len(self._streams) >= self._most:
            await self.send(frames.pack_reset(frame.stream, frames.REFUSED_STREAM))
            return
        stream = SpdyStream(self, frame.stream, frame.headers)
        self._streams[frame.stream] = stream
        if frame.fin:
            stream.inbox.end()
        await self.send(frames.pack_reply(frame.stream, self._packer))
        self._opened(stream)
