"""An HTTP/1.1 server on asyncio streams, parsed by h11: requests with small bodies, and upgrades to other protocols.

Whoever connects has HEAD_S for the head of a request, however slowly it comes, and KEPT_S to send another; heads and
bodies are bounded, and so are connections. A connection that is upgraded leaves HTTP and belongs to its handler."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import h11

from pyrun.http.transport import CHUNK, IDLE_S, SocketTransport

HEAD_S = 10.0
KEPT_S = 60.0
LONGEST_HEAD = 32 * 1024
LONGEST_BODY = 1024 * 1024
MOST_CONNECTIONS = 2000
BACKLOG = 512
STOP_S = 2.0
# Who takes nothing of an answer for so long is gone.
STALLED_S = 60.0

log = logging.getLogger(__name__)


class Gone(Exception):
    """The peer is not there any more, or has not held to HTTP and was told so."""


class Exchange:
    """One request and its one answer: `respond`, or a protocol's handshake by `upgrade`."""

    def __init__(self, connection: _Connection, request: h11.Request) -> None:
        self._connection = connection
        self.answered = False
        self.upgraded = False
        self.method = request.method.decode("ascii")
        self.target = request.target.decode("ascii", "replace")
        parts = urlsplit(self.target)
        self.path = unquote(parts.path)
        self._query = parts.query
        self.headers = [(name.decode("ascii"), value.decode("latin-1")) for name, value in request.headers]

    @property
    def query(self) -> dict[str, list[str]]:
        try:
            return parse_qs(self._query, keep_blank_values=True, max_num_fields=1000)
        except ValueError:
            return {}

    def header(self, name: str) -> str | None:
        """The first one; name in small letters."""
        return next((value for found, value in self.headers if found == name), None)

    def listed(self, name: str) -> list[str]:
        """All values of a header that is a list, be it in one line or in several."""
        lines = [value for found, value in self.headers if found == name]
        return [word.strip() for line in lines for word in line.split(",") if word.strip()]

    @property
    def certificate(self) -> dict[str, Any] | None:
        """The client's, verified, as ssl.getpeercert() has it; None without one."""
        return self._connection.certificate()

    def is_gone(self) -> bool:
        """Whether the client has hung up while nothing of it is read."""
        return self._connection.is_gone()

    async def body(self) -> bytes:
        """Raises Gone, after an answer, when it has more than LONGEST_BODY bytes."""
        return await self._connection.read_body(self)

    async def respond(
        self,
        status: int,
        text: str | bytes = b"",
        kind: str = "text/plain; charset=utf-8",
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        await self._connection.respond(self, status, text.encode() if isinstance(text, str) else text, kind, headers)

    async def begin(self, status: int, kind: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        """The head of an answer whose body comes piece by piece: `send`, and `end`."""
        await self._connection.begin(self, status, kind, headers)

    async def send(self, data: bytes) -> None:
        """Raises Gone when nobody takes it."""
        await self._connection.send_piece(data)

    async def end(self) -> None:
        await self._connection.end()

    async def upgrade(self, headers: tuple[tuple[str, str], ...]) -> SocketTransport:
        """101 Switching Protocols; the connection is the caller's from here on. Raises Gone."""
        return await self._connection.upgrade(self, headers)

    async def take_over(self, answer: bytes) -> SocketTransport:
        """As upgrade(), with an answer that somebody else has made."""
        return await self._connection.take_over(self, answer)


Handler = Callable[[Exchange], Awaitable[None]]


class Server:
    """handle: called for each request; what it raises is answered with 500 and logged. most: connections at a time;
    most_of_one: of one address, or network of 64 bits, so that who holds many keeps nobody else out; 0: any number."""

    def __init__(
        self,
        handle: Handler,
        *,
        most: int = MOST_CONNECTIONS,
        most_of_one: int = 0,
        head: float = HEAD_S,
        idle: float = IDLE_S,
        stalled: float = STALLED_S,
    ) -> None:
        self.handle = handle
        self.head = head
        self.idle = idle
        self.stalled = stalled
        self._most, self._most_of_one = most, most_of_one
        self._of: Counter[bytes] = Counter()  # connections by whose they are, where that is bounded
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """The address that it has. Raises OSError."""
        self._server = await asyncio.start_server(self._connected, host, port, backlog=BACKLOG)
        name = self._server.sockets[0].getsockname()
        return name[0], name[1]

    async def listen_on(self, listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """A socket that listens already, TCP or unix; it is the server's from now on."""
        start = asyncio.start_unix_server if listener.family == socket.AF_UNIX else asyncio.start_server
        patience = self.head if tls else None
        self._server = await start(
            self._connected, sock=listener, backlog=BACKLOG, ssl=tls, ssl_handshake_timeout=patience
        )

    def connections(self) -> int:
        return len(self._tasks)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        whose = _network_of(writer.get_extra_info("peername")) if self._most_of_one else b""
        if len(self._tasks) >= self._most or (whose and self._of[whose] >= self._most_of_one):
            writer.transport.abort()
            return
        self._tasks.add(task)
        self._of[whose] += 1
        try:
            await _Connection(self, reader, writer).run()
        except asyncio.CancelledError:
            pass  # by stop(); asyncio's own callback would log it as an error
        finally:
            writer.transport.abort()
            self._tasks.discard(task)
            self._of[whose] -= 1
            if not self._of[whose]:
                del self._of[whose]

    async def stop(self) -> None:
        """Nothing new is taken, what runs is cut off."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_S)


def _network_of(peer: Any) -> bytes:
    """Of a socket's peer; empty where it has no address."""
    if not isinstance(peer, tuple):
        return b""
    address = ipaddress.ip_address(str(peer[0]).partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return address.packed
    return address.ipv4_mapped.packed if address.ipv4_mapped else address.packed[:8]


class _Connection:
    def __init__(self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=LONGEST_HEAD)

    async def run(self) -> None:
        wait = self._server.head
        try:
            while (exchange := await self._read_head(wait)) is not None:
                await self._serve(exchange)
                if exchange.upgraded or not self._again():
                    return
                wait = KEPT_S
                await asyncio.sleep(0)  # who sends many requests at once does not keep others waiting
        except (Gone, OSError):
            pass
        finally:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1.0):
                    self._writer.close()
                    await self._writer.wait_closed()

    async def _serve(self, exchange: Exchange) -> None:
        try:
            await self._server.handle(exchange)
        except (Gone, asyncio.CancelledError):
            raise
        except Exception:
            log.exception("%s %s", exchange.method, exchange.path.split("/")[1:2])
            if not exchange.answered:
                await exchange.respond(500, "internal error\n")
            return
        if not exchange.answered:
            await exchange.respond(404, "not found\n")

    async def _read_head(self, wait: float) -> Exchange | None:
        try:
            async with asyncio.timeout(wait):
                event = await self._next_event()
        except TimeoutError:
            return None
        except h11.RemoteProtocolError as error:
            await self._refuse(error)
            return None
        return Exchange(self, event) if isinstance(event, h11.Request) else None

    async def _next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            if self._h11.they_are_waiting_for_100_continue:
                await self._send(h11.InformationalResponse(status_code=100, headers=[]))
            self._h11.receive_data(await self._reader.read(CHUNK))
        return event

    async def _refuse(self, error: h11.RemoteProtocolError) -> None:
        if self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            head = [("Content-Length", "0"), ("Connection", "close")]
            await self._send(h11.Response(status_code=error.error_status_hint, headers=head))

    async def _send(self, event: h11.Event) -> None:
        if data := self._h11.send(event):
            self._writer.write(data)
            try:
                async with asyncio.timeout(self._server.stalled):
                    await self._writer.drain()
            except (TimeoutError, ConnectionError):
                raise Gone from None

    def certificate(self) -> dict[str, Any] | None:
        return self._writer.get_extra_info("peercert") or None

    def is_gone(self) -> bool:
        return self._reader.at_eof() or self._writer.is_closing()

    def _again(self) -> bool:
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
            return True
        return False

    async def read_body(self, exchange: Exchange) -> bytes:
        body = bytearray()
        try:
            async with asyncio.timeout(self._server.head):
                while isinstance(event := await self._next_event(), h11.Data):
                    body += event.data
                    if len(body) > LONGEST_BODY:
                        await exchange.respond(413, f"the body is too long: {LONGEST_BODY >> 20} MiB at the most\n")
                        raise Gone
        except (h11.RemoteProtocolError, TimeoutError):
            raise Gone
        return bytes(body)

    def _skip_body(self) -> bool:
        """Whether all of the body that nobody has read is here already, and so no obstacle to the next request."""
        try:
            while isinstance(event := self._h11.next_event(), h11.Data):
                pass
        except h11.RemoteProtocolError:
            return False
        return isinstance(event, h11.EndOfMessage)

    async def respond(
        self, exchange: Exchange, status: int, body: bytes, kind: str, headers: tuple[tuple[str, str], ...]
    ) -> None:
        await self.begin(exchange, status, kind, (("Content-Length", str(len(body))), *headers))
        if exchange.method != "HEAD":
            await self.send_piece(body)
        await self.end()

    async def begin(self, exchange: Exchange, status: int, kind: str, headers: tuple[tuple[str, str], ...]) -> None:
        exchange.answered = True
        if self._h11.their_state is h11.SEND_BODY and not self._skip_body():
            headers = (*headers, ("Connection", "close"))
        await self._send(h11.Response(status_code=status, headers=[("Content-Type", kind), *headers]))

    async def send_piece(self, data: bytes) -> None:
        await self._send(h11.Data(data=data))

    async def end(self) -> None:
        await self._send(h11.EndOfMessage())

    async def upgrade(self, exchange: Exchange, headers: tuple[tuple[str, str], ...]) -> SocketTransport:
        await exchange.body()
        answer = self._h11.send(h11.InformationalResponse(status_code=101, headers=list(headers)))
        return await self.take_over(exchange, answer or b"")

    async def take_over(self, exchange: Exchange, answer: bytes) -> SocketTransport:
        if not exchange.upgraded and self._h11.their_state is not h11.SWITCHED_PROTOCOL:
            await exchange.body()
        exchange.answered = exchange.upgraded = True
        early = self._h11.trailing_data[0]
        transport = SocketTransport(self._reader, self._writer, early, self._server.idle)
        self._writer.write(answer)
        await self._writer.drain()
        return transport
