"""Serves metrics over HTTP to those who collect them, and reads what is asked for when it is asked for.

Scrapers may be many and impatient: one reading is under way at a time, and who comes meanwhile, or within FRESH
seconds after it, gets what it brings.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from dataclasses import dataclass

from ..errors import PyrunError
from ..http.server import Exchange, Server
from .families import plan_cadvisor, plan_resource
from .node import NodeUsage, collect_node
from .readings import Readings, collect_readings
from .summary import plan_rate, plan_summary
from .text import COUNTER, GAUGE, KIND, Family, render

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Ready = Callable[[tuple[str, int]], None]

FRESH = 1.0
PAGES = ("/metrics", "/metrics/cadvisor", "/metrics/resource", "/stats/summary", "/healthz")


@dataclass(slots=True)
class Told:
    """What an exporter has done."""

    readings: int = 0
    failures: int = 0
    seconds: float = 0.0


class Exporter:
    """cri: the socket's path. node: the name that the summary has."""

    def __init__(self, cri: str, node: str) -> None:
        self._cri = cri
        self._node = node
        self._told = Told()
        self._before: NodeUsage = collect_node()
        self._cores: int | None = None
        self._reading: asyncio.Task[Readings] | None = None
        self._fresh_until = 0.0
        self._server = Server(self._handle)

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        return await self._server.listen(host, port)

    async def stop(self) -> None:
        await self._server.stop()
        if self._reading is not None:
            self._reading.cancel()

    async def _readings(self) -> Readings:
        if self._reading is None or (self._reading.done() and time.monotonic() > self._fresh_until):
            self._reading = asyncio.create_task(self._read())
        # A scraper that gives up does not end the reading for others.
        return await asyncio.shield(self._reading)

    async def _read(self) -> Readings:
        begun = time.monotonic()
        try:
            readings = await asyncio.to_thread(collect_readings, self._cri)
        except PyrunError:
            self._told.failures += 1
            raise
        finally:
            now = time.monotonic()
            self._told.readings += 1
            self._told.seconds += now - begun
            self._fresh_until = now + FRESH
        self._cores = plan_rate(self._before, readings.node)
        self._before = readings.node
        return readings

    async def _handle(self, exchange: Exchange) -> None:
        if exchange.path not in PAGES:
            await exchange.respond(404, f"there is {', '.join(PAGES)}\n")
        elif exchange.method not in ("GET", "HEAD"):
            await exchange.respond(405, "GET alone\n", headers=(("allow", "GET, HEAD"),))
        else:
            await self._answer(exchange)

    async def _answer(self, exchange: Exchange) -> None:
        if exchange.path == "/healthz":
            return await exchange.respond(200, "ok\n")
        if exchange.path == "/metrics":
            return await exchange.respond(200, render(plan_own(self._told)), KIND)
        try:
            readings = await self._readings()
        except PyrunError as error:
            return await exchange.respond(503, "\n".join(error.lines()) + "\n")
        if exchange.path == "/stats/summary":
            text = json.dumps(plan_summary(self._node, readings, self._cores))
            return await exchange.respond(200, text, "application/json")
        plan = plan_cadvisor if exchange.path == "/metrics/cadvisor" else plan_resource
        await exchange.respond(200, render(plan(readings)), KIND)


def plan_own(told: Told) -> list[Family]:
    """What the exporter says of itself."""
    rows = (
        ("pyrun_metrics_readings_total", "Readings of the runtime", COUNTER, told.readings),
        ("pyrun_metrics_reading_failures_total", "Readings that failed", COUNTER, told.failures),
        ("pyrun_metrics_reading_seconds_total", "Seconds that readings took", COUNTER, told.seconds),
        ("process_cpu_seconds_total", "CPU time of this process in seconds", COUNTER, time.process_time()),
        ("process_open_fds", "Open file descriptors", GAUGE, len(os.listdir("/proc/self/fd"))),
    )
    return [Family(name, text, kind, (), {(): value}) for name, text, kind, value in rows]


async def serve(cri: str, node: str, host: str, port: int, ended: asyncio.Event, ready: Ready) -> None:
    """Until `ended` is set. ready: told the address that it has. Raises OSError where it can't be had."""
    exporter = Exporter(cri, node)
    address = await exporter.listen(host, port)
    ready(address)
    try:
        await ended.wait()
    finally:
        await exporter.stop()
