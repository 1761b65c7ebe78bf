"""What is served on the kubelet's port: each request is let in or not, and then answered by the agent's words.

GET  /healthz /pods /runningpods/ /configz /stats/summary /metrics /metrics/{cadvisor,resource,probes}
GET  /containerLogs/NAMESPACE/POD/CONTAINER?follow&previous&tailLines&sinceSeconds&sinceTime&timestamps&limitBytes
GET, POST  /exec and /attach/NAMESPACE/POD[/UID]/CONTAINER, /portForward/NAMESPACE/POD[/UID]
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from ..cri.stream.commands import serve_attach, serve_exec
from ..cri.stream.ports import forward
from ..errors import FailedPrecondition, InvalidArgument, NotFound, PyrunError, ResourceExhausted
from ..http.portforward import serve_ports
from ..http.remotecommand import Wanted, open_session
from ..http.server import Exchange
from ..http.spdy.connection import SpdyStream
from ..kube.certificates import load_pair
from ..metrics.text import KIND
from ..node.agent.remote import Remote, RemoteAttachment, RemoteCommand, remote_sockets
from ..web.ask import Questions
from .access import rights
from .gate import Gate

JSON, TEXT = "application/json", "text/plain; charset=utf-8"
HEADERS = (("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store"))
STATUS = {InvalidArgument: 400, FailedPrecondition: 400, NotFound: 404, ResourceExhausted: 429}
PATIENCE_S = 30.0
LOOK_S = 1.0
AGAIN_S = 5.0
CHUNK = 64 * 1024
VALUES = {
    "/pods": ("pods", JSON),
    "/runningpods": ("runningpods", JSON),
    "/configz": ("configz", JSON),
    "/stats/summary": ("summary", JSON),
    "/metrics": ("metrics", KIND),
    "/metrics/cadvisor": ("cadvisor", KIND),
    "/metrics/resource": ("resource", KIND),
    "/metrics/probes": ("probes", KIND),
}
HEALTHY = ("/healthz", "/healthz/ping", "/healthz/log", "/healthz/syncloop")
REFUSED = {
    "checkpoint": "checkpoints of containers are not supported",
    "run": "/run is not supported: use /exec",
    "logs": "the node's own log files are not served: read them on the node",
    "debug": "profiles are not served",
}


class Web:
    def __init__(self, questions: Questions, anonymous: bool = False) -> None:
        self._questions = questions
        self._gate = Gate(self._ask, anonymous=anonymous)

    async def _ask(self, ask: str, /, **question: Any) -> Any:
        return await self._questions.ask_one(ask, PATIENCE_S, **question)

    async def follow_certificate(self, tls: ssl.SSLContext) -> None:
        """Connections from now on are shown the newest, as the agent tells it. It ends with the agent."""
        while True:
            with contextlib.suppress(PyrunError, OSError):
                async for pair in self._questions.ask("certificate"):
                    load_pair(tls, pair["certificate"].encode(), pair["key"].encode())
            await asyncio.sleep(AGAIN_S)

    async def healthz(self, exchange: Exchange) -> None:
        """The port for whoever is on this node."""
        if exchange.path not in HEALTHY:
            return await _say(exchange, 404, "there is /healthz")
        try:
            await self._ask("healthy")
        except PyrunError as error:
            return await _say(exchange, 500, str(error))
        await _say(exchange, 200, "ok")

    async def read_only(self, exchange: Exchange) -> None:
        """The port for whoever reaches it: what can be read of pods but their logs."""
        path = "/" + exchange.path.strip("/")
        if path not in HEALTHY and path not in VALUES or path == "/configz":
            return await _say(exchange, 404, "there is no such page on the port that is read only")
        try:
            await self._answer(exchange)
        except PyrunError as error:
            await _say(exchange, STATUS.get(type(error), 503), "; ".join(error.lines()))

    async def handle(self, exchange: Exchange) -> None:
        try:
            if _is_of_a_page(exchange):
                return await _say(exchange, 403, "Forbidden: pages of browsers are not let in: ask the API server")
            if await self._is_let_in(exchange):
                await self._answer(exchange)
        except PyrunError as error:
            if exchange.answered:
                raise
            await _say(exchange, STATUS.get(type(error), 503), "; ".join(error.lines()))

    async def _is_let_in(self, exchange: Exchange) -> bool:
        user = await self._gate.user(exchange.certificate, exchange.header("authorization"))
        if user is None:
            wanted = (("WWW-Authenticate", "Bearer"),)
            await exchange.respond(401, "Unauthorized: a client certificate or a token is needed\n", TEXT, wanted)
            return False
        wanted_rights = rights(exchange.method, exchange.path)
        if not await self._gate.may(user, wanted_rights):
            needed = " or ".join(str(right) for right in wanted_rights)
            await _say(exchange, 403, f"Forbidden: user {user.name} lacks {needed}")
            return False
        return True

    async def _answer(self, exchange: Exchange) -> None:
        words = exchange.path.strip("/").split("/")
        path = "/" + "/".join(words)
        if path in HEALTHY:
            await self.healthz(exchange)
        elif path in VALUES:
            if exchange.method not in ("GET", "HEAD"):
                return await _say(exchange, 405, "GET alone")
            ask, kind = VALUES[path]
            value = await self._ask(ask)
            await exchange.respond(200, value if kind == KIND else json.dumps(value), kind, HEADERS)
        elif words[0] in REFUSED:
            await _say(exchange, 501, REFUSED[words[0]])
        elif (route := self._routes().get((words[0], len(words)))) is not None:
            if exchange.method not in ("GET", "POST") or (words[0] == "containerLogs" and exchange.method != "GET"):
                return await _say(exchange, 405, "GET alone" if words[0] == "containerLogs" else "GET or POST")
            await route(exchange, words[1:])
        else:
            await _say(exchange, 404, "there is no such page")

    def _routes(self) -> dict[tuple[str, int], Callable[[Exchange, list[str]], Awaitable[None]]]:
        """By the first word and how many there are."""
        return {
            ("containerLogs", 4): self._logs,
            ("exec", 4): self._exec,
            ("exec", 5): self._exec,
            ("attach", 4): self._attach,
            ("attach", 5): self._attach,
            ("portForward", 3): self._ports,
            ("portForward", 4): self._ports,
        }

    # --- logs ---

    async def _logs(self, exchange: Exchange, words: list[str]) -> None:
        of = [words[0], words[1], "", words[2]]
        query = {name: values[-1] for name, values in exchange.query.items()}
        _, reader, writer = await self._questions.open("logs", PATIENCE_S, of=of, query=query)
        try:
            await exchange.begin(200, TEXT, HEADERS)
            while not exchange.is_gone():
                try:
                    async with asyncio.timeout(LOOK_S):
                        data = await reader.read(CHUNK)
                except TimeoutError:
                    continue
                if not data:
                    break
                await exchange.send(data)
            await exchange.end()
        finally:
            writer.close()

    # --- commands and ports ---

    async def _exec(self, exchange: Exchange, words: list[str]) -> None:
        of, wanted, argv = _of(words), _wanted(exchange), exchange.query.get("command", [])
        if not argv or not argv[0]:
            raise InvalidArgument("command: there is none")
        await self._ask("container", of=of)
        session = await open_session(exchange, wanted)
        if session is not None:
            asked = {"of": of, "argv": argv, **_streams(wanted)}
            await serve_exec(session, lambda: RemoteCommand(Remote(self._questions.send("exec", **asked))))

    async def _attach(self, exchange: Exchange, words: list[str]) -> None:
        of, wanted = _of(words), _wanted(exchange)
        await self._ask("container", of=of)
        session = await open_session(exchange, wanted)
        if session is not None:
            asked = {"of": of, **_streams(wanted)}
            await serve_attach(session, lambda: RemoteAttachment(Remote(self._questions.send("attach", **asked))))

    async def _ports(self, exchange: Exchange, words: list[str]) -> None:
        of = [words[0], words[1], words[2] if len(words) > 2 else "", ""]
        await self._ask("pod", of=of)

        async def one(port: int, data: SpdyStream, errors: SpdyStream) -> None:
            await forward(words[1], port, lambda: remote_sockets(self._questions.send("ports", of=of)), data, errors)

        await serve_ports(exchange, one)


def _is_of_a_page(exchange: Exchange) -> bool:
    """Whether a browser sent it for a page of anybody's, with the certificate that its user has. An API server hands on
    its client's Origin, too, and says for whom: no page can say that without asking by OPTIONS, which is refused."""
    return exchange.header("origin") is not None and exchange.header("x-forwarded-for") is None


def _of(words: list[str]) -> list[str]:
    """Namespace, pod, uid and container, of NAMESPACE/POD[/UID]/CONTAINER."""
    return [words[0], words[1], words[2] if len(words) == 4 else "", words[-1]]


def _wanted(exchange: Exchange) -> Wanted:
    """InvalidArgument where a client wants what can't be."""
    query = exchange.query
    has = {name: query.get(name, [""])[-1] in ("1", "true") for name in ("input", "output", "error", "tty")}
    # What a terminal shows is one stream: a client that asks for both gets it on its output.
    wanted = Wanted(stdin=has["input"], stdout=has["output"], stderr=has["error"] and not has["tty"], tty=has["tty"])
    if not (wanted.stdin or wanted.stdout or wanted.stderr):
        raise InvalidArgument("one of input, output and error must be 1")
    return wanted


def _streams(wanted: Wanted) -> dict[str, bool]:
    return {"tty": wanted.tty, "stdin": wanted.stdin, "stdout": wanted.stdout, "stderr": wanted.stderr}


async def _say(exchange: Exchange, status: int, text: str) -> None:
    await exchange.respond(status, text + ("" if text == "ok" else "\n"), TEXT, HEADERS)
