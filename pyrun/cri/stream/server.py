"""The streaming server: URLs for one use each, and what happens when a client comes with one.

It listens on loopback, on a port of the kernel's choice, and knows a client by nothing but its token; the kubelet,
which asked for the URL, is who connects, and passes a user's stream on."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from pyrun.cri.stream.backend import Backend
from pyrun.cri.stream.commands import serve_attach, serve_exec
from pyrun.cri.stream.ports import forward, open_sockets
from pyrun.cri.stream.tokens import Tokens
from pyrun.errors import InvalidArgument
from pyrun.http.portforward import serve_ports
from pyrun.http.remotecommand import Wanted, open_session
from pyrun.http.server import Exchange, Server
from pyrun.http.spdy.connection import SpdyStream

ADDRESS = ("127.0.0.1", 0)


@dataclass(frozen=True, slots=True)
class Exec:
    container: str
    argv: tuple[str, ...]
    wanted: Wanted


@dataclass(frozen=True, slots=True)
class Attach:
    container: str
    wanted: Wanted


@dataclass(frozen=True, slots=True)
class Ports:
    pod: str


Request = Exec | Attach | Ports
_VERBS: dict[str, type[Exec] | type[Attach] | type[Ports]] = {"exec": Exec, "attach": Attach, "portforward": Ports}


class Streams:
    """Make it, `await start()`, and `await stop()` in the end."""

    def __init__(self, backend: Backend, address: tuple[str, int] = ADDRESS) -> None:
        self._backend = backend
        self._address = address
        self._tokens: Tokens[Request] = Tokens()
        self.server = Server(self._handle)
        self._base = ""

    async def start(self) -> None:
        """Raises OSError."""
        host, port = await self.server.listen(*self._address)
        self._base = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def stop(self) -> None:
        await self.server.stop()

    def exec(self, container: str, argv: tuple[str, ...], wanted: Wanted) -> str:
        """The URL. Raises InvalidArgument, ResourceExhausted."""
        if not argv:
            raise InvalidArgument("exec without a command")
        _check(wanted)
        return self._url("exec", Exec(container, argv, wanted))

    def attach(self, container: str, wanted: Wanted) -> str:
        _check(wanted)
        return self._url("attach", Attach(container, wanted))

    def port_forward(self, pod: str) -> str:
        return self._url("portforward", Ports(pod))

    def _url(self, verb: str, request: Request) -> str:
        return f"{self._base}/{verb}/{self._tokens.make(request)}"

    async def _handle(self, exchange: Exchange) -> None:
        verb, _, token = exchange.path[1:].partition("/")
        if verb not in _VERBS or not token:
            return  # 404
        if exchange.method not in ("GET", "POST"):
            await exchange.respond(405, "GET or POST\n", headers=(("Allow", "GET, POST"),))
            return
        request = self._tokens.take(token)
        if not isinstance(request, _VERBS[verb]):
            return
        match request:
            case Exec():
                await self._exec(exchange, request)
            case Attach():
                await self._attach(exchange, request)
            case Ports():
                await self._ports(exchange, request)

    async def _exec(self, exchange: Exchange, request: Exec) -> None:
        wanted = request.wanted
        session = await open_session(exchange, wanted)
        if session is not None:
            await serve_exec(
                session,
                lambda: self._backend.exec(
                    request.container,
                    request.argv,
                    tty=wanted.tty,
                    stdin=wanted.stdin,
                    stdout=wanted.stdout,
                    stderr=wanted.stderr,
                ),
            )

    async def _attach(self, exchange: Exchange, request: Attach) -> None:
        wanted = request.wanted
        session = await open_session(exchange, wanted)
        if session is not None:
            await serve_attach(
                session,
                lambda: self._backend.attach(
                    request.container, tty=wanted.tty, stdin=wanted.stdin, stdout=wanted.stdout, stderr=wanted.stderr
                ),
            )

    async def _ports(self, exchange: Exchange, request: Ports) -> None:
        async def one(port: int, data: SpdyStream, errors: SpdyStream) -> None:
            def make() -> list[socket.socket]:
                return open_sockets(lambda: self._backend.netns(request.pod))

            await forward(request.pod, port, make, data, errors)

        await serve_ports(exchange, one)


def _check(wanted: Wanted) -> None:
    if wanted.tty and wanted.stderr:
        raise InvalidArgument("a terminal has no standard error of its own: tty and stderr can't both be set")
    if not (wanted.stdin or wanted.stdout or wanted.stderr):
        raise InvalidArgument("one of stdin, stdout and stderr must be set")
