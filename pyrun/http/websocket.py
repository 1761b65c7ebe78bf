"""WebSocket by wsproto: the handshake, binary messages in pieces, and a transport for a protocol that is tunnelled in
it.

A message may be of any length and is handed on as it comes, so nothing is kept. Text is refused: every protocol of
Kubernetes is binary."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from wsproto import WSConnection
from wsproto.connection import ConnectionState, ConnectionType
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, Request, TextMessage
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from pyrun.http.server import Exchange
from pyrun.http.streams import StreamReset
from pyrun.http.transport import Transport

NORMAL, PROTOCOL_ERROR, UNSUPPORTED = 1000, 1002, 1003


def asked(exchange: Exchange) -> bool:
    return (exchange.header("upgrade") or "").lower() == "websocket"


async def accept(exchange: Exchange, protocols: tuple[str, ...]) -> tuple[WebSocket, str] | None:
    """The connection and the protocol, the first of ours that the client takes; None after a refusal, which names
    them."""
    connection = WSConnection(ConnectionType.SERVER)
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in exchange.headers]
    try:
        if exchange.method != "GET":
            raise RemoteProtocolError("a WebSocket begins with GET")
        connection.initiate_upgrade_connection(raw, exchange.target)
        request = next(connection.events())
    except (RemoteProtocolError, StopIteration) as error:
        await exchange.respond(400, f"not a WebSocket handshake: {error}\n")
        return None
    offered = request.subprotocols if isinstance(request, Request) else []
    chosen = next((name for name in protocols if name in offered), None)
    if chosen is None:
        names = ", ".join(repr(name) for name in offered) or "none"
        await exchange.respond(
            400, f"of the subprotocols {names}, none is supported; supported are {', '.join(protocols)}\n"
        )
        return None
    answer = connection.send(AcceptConnection(subprotocol=chosen))
    return WebSocket(await exchange.take_over(answer), connection), chosen


@dataclass(frozen=True, slots=True)
class Piece:
    """Of a message. first, last: whether it begins and ends one."""

    data: bytes
    first: bool
    last: bool


class WebSocket:
    def __init__(self, transport: Transport, connection: WSConnection) -> None:
        self._transport = transport
        self._wsproto = connection
        self._first = True

    async def receive(self) -> Piece | None:
        """None when the peer has closed it, has gone, or was told what it did wrong."""
        while True:
            try:
                for event in self._wsproto.events():
                    match event:
                        case BytesMessage():
                            piece = Piece(bytes(event.data), self._first, event.message_finished)
                            self._first = event.message_finished
                            return piece
                        case Ping():
                            await self._transport.write(self._wsproto.send(event.response()))
                        case CloseConnection():
                            if self._wsproto.state is ConnectionState.REMOTE_CLOSING:
                                await self._transport.write(self._wsproto.send(event.response()))
                            else:  # wsproto's word for a frame that is none
                                await self._say_close(event.code, event.reason or "")
                            return None
                        case TextMessage():
                            await self._say_close(UNSUPPORTED, "binary messages only")
                            return None
                data = await self._transport.read()
                if not data:
                    return None
                self._wsproto.receive_data(data)
            except RemoteProtocolError as error:
                await self._say_close(PROTOCOL_ERROR, str(error))
                return None
            except StreamReset:
                return None

    async def send(self, data: bytes) -> None:
        """One binary message. Raises StreamReset."""
        try:
            frame = self._wsproto.send(BytesMessage(data=data))
        except LocalProtocolError:
            raise StreamReset("the WebSocket is closed")
        await self._transport.write(frame)

    def gone(self) -> bool:
        return self._transport.gone()

    async def _say_close(self, code: int, reason: str) -> None:
        try:
            await self._transport.write(self._wsproto.send(CloseConnection(code=code, reason=reason[:100])))
        except (LocalProtocolError, StreamReset):
            pass

    async def close(self, linger: float) -> None:
        await self._say_close(NORMAL, "")
        await self._transport.close(linger)

    async def close_politely(self, reading: asyncio.Task[None], seconds: float) -> None:
        """Says that it ends; the peer has so long to say so too, which `reading` sees."""
        await self._say_close(NORMAL, "")
        await asyncio.wait([reading], timeout=seconds)


class Tunnel:
    """A transport in binary messages, whose borders mean nothing."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket

    async def read(self) -> bytes:
        while (piece := await self._websocket.receive()) is not None:
            if piece.data:
                return piece.data
        return b""

    async def write(self, data: bytes) -> None:
        await self._websocket.send(data)

    def gone(self) -> bool:
        return self._websocket.gone()

    async def close(self, linger: float) -> None:
        await self._websocket.close(linger)
