"""What load balancers, kubelets and people ask the proxy over HTTP, in a thread of its own.

/healthz and /livez are for everybody (kube-proxy's port 10256), and so is a port for each Service that has a
healthCheckNodePort; metrics are on loopback; a unix socket of root's is for our own commands.
Slow or many clients meet the bounds of pyrun/http/server.py.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ..errors import PyrunError, reason
from ..http.server import Exchange, Server
from ..listen import listen
from .metrics import KIND, Metrics
from .rules import HealthCheck, Refusal, Rules

JSON = "application/json"
WEIGHT = "X-Load-Balancing-Endpoint-Weight"
CHECK, UNHEARD = "healthCheckNodePort", "FailedToStartServiceHealthcheck"  # the latter is kube-proxy's word
LATE_S = 60.0  # a change that has not been carried out for so long is no health
CONNECTIONS, OF_ONE = 256, 32  # at a time, of each socket, and of one client of it
HEAD_S = 5.0
DO_S = 10.0


@dataclass(slots=True)
class Health:
    """What the daemon's thread writes and this one reads. queued: since when a change waits, 0: none does."""

    rules: Rules = field(default_factory=Rules)
    applied: float = 0.0  # seconds since 1970; 0: nothing has been yet
    queued: float = 0.0  # monotonic
    deleting: bool = False  # the node
    checks: dict[int, HealthCheck] = field(default_factory=dict)

    def is_alive(self) -> bool:
        return self.applied > 0 and not (self.queued and time.monotonic() - self.queued > LATE_S)


class Web:
    """pages: what the unix socket answers, by path; explained: of one Service, by namespace and name. All are called in
    threads of this one. render: the metrics."""

    def __init__(
        self,
        health: Health,
        metrics: Metrics,
        pages: Mapping[str, Callable[[], dict[str, Any]]],
        render: Callable[[], str],
        explained: Callable[[str, str], dict[str, Any] | None] = lambda namespace, name: None,
    ) -> None:
        self._explained = explained
        self._health = health
        self._metrics = metrics
        self._pages = pages
        self._render = render
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)
        self._servers: dict[str, Server] = {}
        self._ports: dict[int, Refusal | None] = {}  # health check ports: None, it is served; or why not

    def start(self, healthz: str | None, metrics: str | None, control: str) -> None:
        """healthz, metrics: HOST:PORT; None: not at all. PyrunError where an address can't be had."""
        self._thread.start()
        for name, address, handle in (("healthz", healthz, self._healthz), ("metrics", metrics, self._serve_metrics)):
            if address:
                self._do(self._listen(name, tcp(name, address), handle))
        self._do(self._listen("control", listen(control), self._control))

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    def _do(self, what: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(DO_S)

    async def _listen(self, name: str, listener: socket.socket, handle: Any) -> None:
        server = Server(handle, most=CONNECTIONS, most_of_one=OF_ONE, head=HEAD_S)
        await server.listen_on(listener)
        self._servers[name] = server

    async def _unlisten(self, name: str) -> None:
        await self._servers.pop(name).stop()

    def stop(self) -> None:
        if not self._thread.is_alive():
            return
        for name in list(self._servers):
            self._do(self._unlisten(name))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DO_S)

    # --- health checks of load balancers ---

    def set_checks(self, checks: tuple[HealthCheck, ...]) -> list[Refusal]:
        """Serves exactly these ports; returns those that can't be."""
        wanted = {check.port: check for check in checks}
        self._health.checks = wanted
        for port in self._ports.keys() - wanted.keys():
            if f"check {port}" in self._servers:
                self._do(self._unlisten(f"check {port}"))
            del self._ports[port]
        for port, check in wanted.items():
            if port in self._ports and self._ports[port] is None:
                continue
            try:
                self._do(self._listen(f"check {port}", tcp(CHECK, f":{port}"), self._check_of(port)))
                self._ports[port] = None
            except PyrunError as error:
                owner, why = (check.namespace, check.name), error.text.removeprefix(f"{CHECK}: ")
                self._ports[port] = Refusal(CHECK, why, f"Service {'/'.join(owner)}", UNHEARD, owner)
        return [one for one in self._ports.values() if one is not None]

    def _check_of(self, port: int) -> Callable[[Exchange], Any]:
        async def handle(exchange: Exchange) -> None:
            check = self._health.checks.get(port)
            local = check.local if check else 0
            alive = self._health.is_alive() and not self._health.deleting
            body = {
                "service": {"namespace": check.namespace if check else "", "name": check.name if check else ""},
                "localEndpoints": local,
                "serviceProxyHealthy": alive,
            }
            headers = (("X-Content-Type-Options", "nosniff"), (WEIGHT, str(local)))
            await exchange.respond(200 if local and alive else 503, json.dumps(body) + "\n", JSON, headers)

        return handle

    # --- the others ---

    async def _healthz(self, exchange: Exchange) -> None:
        path = exchange.path
        if path not in ("/healthz", "/livez"):
            return
        eligible = not self._health.deleting
        good = self._health.is_alive() and (eligible or path == "/livez")
        body = {"lastUpdated": _time(self._health.applied), "currentTime": _time(time.time()), "nodeEligible": eligible}
        code = 200 if good else 503
        self._metrics.count_answer(path[1:], code)
        await exchange.respond(code, json.dumps(body) + "\n", JSON, (("X-Content-Type-Options", "nosniff"),))

    async def _serve_metrics(self, exchange: Exchange) -> None:
        if exchange.path == "/metrics":
            await exchange.respond(200, await asyncio.to_thread(self._render), KIND)
        elif exchange.path == "/proxyMode":
            await exchange.respond(200, self._pages["/status"]()["mode"])
        else:
            await self._healthz(exchange)

    async def _control(self, exchange: Exchange) -> None:
        answer = self._pages.get(exchange.path)
        if answer is not None:
            return await exchange.respond(200, await asyncio.to_thread(lambda: json_text(answer())), JSON)
        match exchange.path.split("/"):
            case ["", "services", namespace, name]:
                found = await asyncio.to_thread(self._explained, namespace, name)
                await exchange.respond(200, json_text(found if found is not None else {"missing": True}), JSON)


def json_text(value: Mapping[str, Any]) -> str:
    """A line. Lists and iterators are written item by item: nothing else of this process runs during a json.dumps(),
    and there may be a hundred thousand items."""
    parts = []
    for key, one in value.items():
        is_long = isinstance(one, (list, Iterator))
        text = f"[{', '.join(map(json.dumps, one))}]" if is_long else json.dumps(one)
        parts.append(f"{json.dumps(key)}: {text}")
    return f"{{{', '.join(parts)}}}\n"


def tcp(what: str, address: str) -> socket.socket:
    """Listens on HOST:PORT; without a host, on all addresses of both families. PyrunError."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise PyrunError(f"{what}: {address!r} is not HOST:PORT")
    host = host.strip("[]")
    if host in ("", "0.0.0.0", "::"):
        family, host, both = socket.AF_INET6, "::", True
    else:
        family, both = socket.AF_INET6 if ":" in host else socket.AF_INET, False
    try:
        try:
            made = socket.create_server((host, int(port)), family=family, dualstack_ipv6=both)
        except OSError:
            if not both:
                raise
            made = socket.create_server(("0.0.0.0", int(port)))  # a node without IPv6, or its other half is taken
    except OSError as error:
        raise PyrunError(f"{what}: {address}: {reason(error)}", hint="another program has this port") from None
    made.setblocking(False)
    return made


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
