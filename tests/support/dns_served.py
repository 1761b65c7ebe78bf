"""The daemon in a thread of the test, with the small cluster of dns.py."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pyrun.dns.daemon
from pyrun.dns import wire
from pyrun.dns.daemon import Daemon, Settings
from pyrun.dns.plan import Options
from pyrun.dns.program import PROGRAM, end_program, start
from pyrun.dns.servers import Servers
from pyrun.kube.feed.store import Store, Told
from tests.support.dns import CLUSTER, ask, shown
from tests.support.dns_program import LOOPBACK, PATIENCE_S, PROGRAM_TESTED
from tests.support.dns_upstream import free_port
from tests.support.serving import end_threads

if PROGRAM_TESTED != PROGRAM:  # one with sanitizers
    setattr(pyrun.dns.daemon, "start", functools.partial(start, program=PROGRAM_TESTED))  # noqa: B010


class Served:
    """A daemon in a thread of the test. said: its lines."""

    def __init__(self, daemon: Daemon, port: int, store: Store, said: list[str]) -> None:
        self.daemon, self.port, self.store, self.said = daemon, port, store, said

    def udp(self, name: str, kind: str = "A", source: str = "127.0.0.1") -> tuple[str, list[str]]:
        return shown(self.raw(ask(name, kind), source))[:2]

    def raw(self, query: bytes, source: str = "127.0.0.1") -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(PATIENCE_S)
            client.bind((source, 0))
            client.connect(("127.0.0.1", self.port))
            client.send(query)
            return client.recv(65535)


def tell_cluster(store: Store, *more: dict[str, Any]) -> None:
    values = [*CLUSTER, *more]
    store.replace(
        "test", {(v["kind"], v["metadata"]["namespace"], v["metadata"]["name"]): Told(v, "test") for v in values}
    )


@contextlib.contextmanager
def serving(
    upstreams: Servers | None = None,
    resolv_conf: str | None = None,
    port: int = 0,
    metrics: str | None = None,
    options: Options | None = None,
    objects: tuple[dict[str, Any], ...] = (),
) -> Iterator[Served]:
    port, store, said = port or free_port(), Store(), list[str]()
    tell_cluster(store, *objects)
    with tempfile.TemporaryDirectory(prefix="pyrun-dns-") as directory:
        settings = Settings(
            f"{directory}/state",
            (("127.0.0.1", port),),
            LOOPBACK,
            options or Options(),
            upstreams,
            resolv_conf,
            rate=0,
            metrics=metrics,
            searches_of_file=resolv_conf is not None,
        )
        daemon = Daemon(settings, store, said.append)
        ready = threading.Event()
        stop = os.eventfd(0)
        daemon.loop.read(stop, daemon.stop)
        thread = threading.Thread(target=lambda: daemon.run(lambda _: ready.set()))
        thread.start()
        try:
            assert ready.wait(PATIENCE_S)
            yield Served(daemon, port, store, said)
        finally:
            os.eventfd_write(stop, 1)
            end_threads(thread)
            os.close(stop)
            end_program(daemon.responder.pid)
            store.close()


def total(text: str, name: str, **labels: str) -> float:
    """The sum over a metric's samples with these labels. AssertionError where there is no such metric."""
    assert f"# TYPE {name} " in text, name
    found = 0.0
    for line in text.splitlines():
        sample = re.fullmatch(rf"{name}(?:{{(.*)}})? (\S+)", line)
        if sample and labels.items() <= dict(re.findall(r'(\w+)="([^"]*)"', sample[1] or "")).items():
            found += float(sample[2])
    return found


def at(*ports: int) -> Servers:
    return Servers({wire.ROOT: tuple(("127.0.0.1", port) for port in ports)})


def wait_until(what: str, true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)
