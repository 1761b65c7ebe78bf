"""Serves metrics over HTTP to those who collect them, and reads what is asked for when it is asked for.

Scrapers may be many and impatient: one reading is under way at a time, and who comes meanwhile, or within FRESH
seconds after it, gets what it brings.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from ..ending import cancel, in_time
from ..errors import InvalidArgument, NotFound, PyrunError, Unavailable
from ..http.server import Exchange, Server
from ..listen import only_one, private_directory
from .block import SECOND
from .families import plan_cadvisor, plan_resource
from .history import collect_history
from .node import NodeUsage, collect_node
from .readings import Readings, collect_durations, collect_readings
from .samples import plan_samples
from .slices import collect_slices
from .store import Keep, Store
from .summary import plan_rate, plan_summary
from .text import COUNTER, GAUGE, KIND, Family, render

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .remote_writer import RemoteWriter

    Ready = Callable[[tuple[str, int]], None]

FRESH = 1.0
PAGES = ("/metrics", "/metrics/cadvisor", "/metrics/resource", "/stats/summary", "/history", "/healthz")


@dataclass(slots=True)
class Told:
    """What an exporter has done."""

    readings: int = 0
    failures: int = 0
    seconds: float = 0.0
    kept: int = 0
    lost: int = 0


class Exporter:
    """cri: the socket's path. node: the name that the summary has. store: the directory of what is kept."""

    def __init__(self, cri: str, node: str, store: str | None = None) -> None:
        self._cri = cri
        self._node = node
        self._store = store
        self._told = Told()
        self.remote: RemoteWriter | None = None
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

    async def keep(self, begin: Callable[[], Store], store: Store | None, period: float, said: str = "") -> None:
        """Reads and keeps each `period` seconds, for ever. What can't be kept is counted, and told once; a store
        that is not there is begun. said: what was told of that."""
        while True:
            await asyncio.sleep(period - time.time() % period)
            try:
                if store is None:
                    store = await asyncio.to_thread(begin)
                readings = await self._readings()
                at = readings.node.time * SECOND // 1_000_000_000
                await asyncio.to_thread(store.append, at, plan_samples(readings))
                self._told.kept += 1
                if said:
                    _say(f"readings are kept again; {self._told.lost} were lost since the start")
                said = ""
            except Exception as error:  # whatever it was: a task that ends keeps nothing any more
                self._told.lost += 1
                if said != (said := _told(error)):
                    _say(f"readings are not kept: {said}")

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
            runtimes = await asyncio.to_thread(collect_durations, self._cri)
            return await exchange.respond(200, render([*plan_own(self._told, self.remote), *runtimes]), KIND)
        if exchange.path == "/history":
            return await self._history(exchange)
        try:
            readings = await self._readings()
        except PyrunError as error:
            return await exchange.respond(503, "\n".join(error.lines()) + "\n")
        if exchange.path == "/stats/summary":
            text = json.dumps(plan_summary(self._node, readings, self._cores))
            return await exchange.respond(200, text, "application/json")
        if exchange.path == "/metrics/resource":
            return await exchange.respond(200, render(plan_resource(readings)), KIND)
        slices = await asyncio.to_thread(collect_slices)
        await exchange.respond(200, render(plan_cadvisor(readings, slices)), KIND)

    async def _history(self, exchange: Exchange) -> None:
        query = {name: values[-1] for name, values in exchange.query.items()}
        of = (query.get("namespace", ""), query.get("pod", ""), query.get("uid", ""))
        try:
            if self._store is None:
                raise NotFound("nothing is kept", hint="pyrun metrics --store DIR keeps what it reads")
            seconds, step = (
                int(query.get(name, otherwise)) for name, otherwise in (("seconds", "3600"), ("step", "30"))
            )
            found = await asyncio.to_thread(collect_history, self._store, of, seconds, step)
        except ValueError:
            await exchange.respond(400, "seconds, step: whole numbers\n")
        except PyrunError as error:
            status = 400 if isinstance(error, InvalidArgument) else 404 if isinstance(error, NotFound) else 503
            await exchange.respond(status, "\n".join(error.lines()) + "\n")
        else:
            await exchange.respond(200, json.dumps(found), "application/json")


def _told(error: Exception) -> str:
    if isinstance(error, PyrunError):
        return error.text
    return str(error) if isinstance(error, sqlite3.Error | OSError) else f"{type(error).__name__}: {error}"


def _say(text: str) -> None:
    with suppress(OSError):
        sys.stderr.write(f"pyrun: metrics: {text}\n")


def plan_own(told: Told, remote: RemoteWriter | None = None) -> list[Family]:
    """What the exporter says of itself."""
    sent = (
        (
            ("pyrun_metrics_remote_write_samples_total", "Samples that were taken", COUNTER, remote.samples),
            ("pyrun_metrics_remote_write_dropped_total", "Samples that were refused", COUNTER, remote.dropped),
            ("pyrun_metrics_remote_write_failures_total", "Attempts that failed", COUNTER, remote.failures),
        )
        if remote
        else ()
    )
    rows = (
        *sent,
        ("pyrun_metrics_readings_total", "Readings of the runtime", COUNTER, told.readings),
        ("pyrun_metrics_reading_failures_total", "Readings that failed", COUNTER, told.failures),
        ("pyrun_metrics_reading_seconds_total", "Seconds that readings took", COUNTER, told.seconds),
        ("pyrun_metrics_store_scrapes_total", "Readings that were kept", COUNTER, told.kept),
        ("pyrun_metrics_store_lost_total", "Readings that could not be kept", COUNTER, told.lost),
        ("process_cpu_seconds_total", "CPU time of this process in seconds", COUNTER, time.process_time()),
        ("process_open_fds", "Open file descriptors", GAUGE, len(os.listdir("/proc/self/fd"))),
    )
    return [Family(name, text, kind, (), {(): value}) for name, text, kind, value in rows]


@dataclass(frozen=True, slots=True)
class Kept:
    """Where what is read is kept, for how long, and how often, in seconds. remote_write: a URL that it is sent to."""

    directory: str
    keep: Keep
    period: float
    remote_write: str | None = None


async def serve(
    cri: str, node: str, host: str, port: int, ended: asyncio.Event, ready: Ready, kept: Kept | None = None
) -> None:
    """Until `ended` is set. ready: told the address that it has. Raises OSError where it can't be had, PyrunError where
    the store can't be it now nor later; a disk that is full is waited for."""
    with ExitStack() as stack:
        store, said = None, ""
        if kept is not None:
            private_directory(kept.directory)
            stack.enter_context(only_one(kept.directory, "pyrun metrics", "--store"))

            def begin() -> Store:
                made = Store(kept.directory, kept.keep)
                stack.callback(in_time, made.close)
                return made

            try:
                store = begin()
            except Unavailable as error:
                said = error.text
                _say(f"readings are not kept: {said}")
        exporter = Exporter(cri, node, kept.directory if kept else None)
        address = await exporter.listen(host, port)
        if kept is not None and kept.remote_write:
            from .remote_writer import RemoteWriter  # and with it urllib3, 3 MB, which nobody else here takes

            exporter.remote = RemoteWriter(kept.remote_write, kept.directory, node, kept.period, kept.keep.seconds)
            exporter.remote.start()
            stack.callback(exporter.remote.stop)
        keeping = asyncio.create_task(exporter.keep(begin, store, kept.period, said)) if kept else None
        ready(address)
        try:
            await ended.wait()
        finally:
            await exporter.stop()
            if keeping is not None:
                await cancel([keeping])
