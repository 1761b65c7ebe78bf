"""The data plane killed under a client that connects every millisecond: when the first connection after it is answered.

    python -m tests.bench.proxy_kill [--kills N] [--services N]      (root; make kill-proxy)

A client, a server and the daemon are processes of their own. Of each kill is told how long after it the first
connection that was begun after it had its answer, and how long the slowest of the next second waited. A connection that
was begun after a kill and is not answered ends it with 1; those that were under way are gone, and counted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pyrun.proxy.carriers import AT_ONCE
from tests.support.daemon import until
from tests.support.pods.nets import setns
from tests.support.proxy.objects import service, slice_of
from tests.support.proxy.running import Proxy, running
from tests.support.proxy.topology import Place, topology

VIP, POD, CLIENT = "10.96.0.1", "10.1.0.1", "10.1.0.9"
AFTER_S = 1.0  # from one kill to the next
EVERY_S = 0.001
WAITS_S = 10.0  # the client for an answer

Attempt = tuple[float, float, bool]  # when it was begun and when it ended, by the monotonic clock; whether answered


class Client:
    """Connects until it is told to end, then has all attempts. For a process of its own."""

    def __init__(self) -> None:
        self.done: list[Attempt] = []
        self._poll = select.epoll()
        self._open: dict[int, tuple[socket.socket, float]] = {}

    def run(self, ended: Callable[[], bool]) -> None:
        due = time.monotonic()
        while not ended():
            now = time.monotonic()
            if now >= due:
                due = max(due + EVERY_S, now - 0.05)
                self._begin(now)
            self._look(max(0.0, due - time.monotonic()))
        last = time.monotonic() + WAITS_S
        while self._open and time.monotonic() < last:
            self._look(0.1)
        self.done += [(begun, time.monotonic(), False) for _, begun in self._open.values()]

    def _begin(self, now: float) -> None:
        s = socket.socket()
        s.setblocking(False)
        s.connect_ex((VIP, 80))
        self._open[s.fileno()] = s, now
        self._poll.register(s.fileno(), select.EPOLLIN)

    def _look(self, seconds: float) -> None:
        for fd, _ in self._poll.poll(seconds):
            s, begun = self._open.pop(fd)
            answered = False
            with contextlib.suppress(OSError):
                answered = bool(s.recv(100))
            self.done.append((begun, time.monotonic(), answered))
            s.close()


@contextlib.contextmanager
def process(place: Place, what: Callable[[Callable[[], bool]], None]) -> Iterator[int]:
    """A child in the place, which is told to end by SIGTERM."""
    pid = os.fork()
    if not pid:
        told = []
        signal.signal(signal.SIGTERM, lambda *_: told.append(True))
        code = 1
        try:
            setns(place.fd)
            what(lambda: bool(told))
            code = 0
        finally:
            os._exit(code)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)


def serve(ended: Callable[[], bool]) -> None:
    server = socket.create_server((POD, 8080), backlog=4096)
    server.settimeout(0.1)
    while not ended():
        with contextlib.suppress(OSError), server.accept()[0] as s:
            s.send(b"x")


def objects(services: int) -> str:
    """The one that is asked, and so many more with ten endpoints each."""
    port = "{name: http, port: 80}"
    parts = [service("web", VIP, ports=port) + slice_of("web", POD, ports="{name: http, port: 8080}")]
    for number in range(services):
        high, low = divmod(number, 250)
        addresses = [f"10.2.{high}.{low + 1}" if not at else f"10.{2 + at}.{high}.{low + 1}" for at in range(10)]
        parts.append(service(f"s{number}", f"10.96.{1 + high}.{low + 1}", ports=port))
        parts.append(slice_of(f"s{number}", *addresses, ports="{name: http, port: 8080}"))
    return "".join(parts)


def kill(proxy: Proxy) -> float:
    pid = until(proxy.plane_pid, "there is no data plane")
    os.kill(pid, signal.SIGKILL)
    when = time.monotonic()
    time.sleep(AFTER_S)
    return when


def told(what: str, times: list[float]) -> None:
    times.sort()
    print(f"{what}: p50 {statistics.median(times):.1f}, p90 {times[len(times) * 9 // 10]:.1f}, most {times[-1]:.1f} ms")


class Found:
    """Milliseconds, of each kill. firsts: until the first answer to a connection that was begun after it; slowest: what
    one of the half second after it waited; before: of the half second before it."""

    def __init__(self) -> None:
        self.firsts: list[float] = []
        self.slowest: list[float] = []
        self.before: list[float] = []
        self.all = self.gone = self.failed = 0

    def take(self, kills: list[float], done: list[Attempt]) -> None:
        self.all += len(done)
        for when in kills:
            after = [one for one in done if when < one[0] <= when + AFTER_S / 2]
            self.failed += sum(not answered for *_, answered in after)
            self.firsts.append(1000 * (min(end for _, end, answered in after if answered) - when))
            self.slowest.append(1000 * max(end - begun for begun, end, answered in after if answered))
            before = [end - begun for begun, end, _ in done if when - AFTER_S / 2 < begun and end < when]
            self.before.append(1000 * max(before))
            self.gone += sum(not answered for begun, end, answered in done if begun <= when < end)

    def tell(self) -> None:
        under_way = f"{self.gone} that were under way are gone"
        print(f"{self.all} connections, {len(self.firsts)} kills; {under_way}; {self.failed} others failed")
        told("the first answer to a connection that was begun after a kill comes after", self.firsts)
        told("the slowest connection of the half second after a kill waits", self.slowest)
        told("and of the half second before", self.before)


def played(pod: Place, place: Place, text: str) -> tuple[list[float], list[Attempt]]:
    """One daemon, whose data plane is killed AT_ONCE times."""
    with tempfile.TemporaryDirectory() as directory:
        result = Path(directory) / "attempts"

        def connect(ended: Callable[[], bool]) -> None:
            client = Client()
            client.run(ended)
            result.write_text(json.dumps(client.done))

        with process(pod, serve), running(Path(directory) / "proxy", "userspace", text) as proxy:
            with process(place, connect):
                time.sleep(AFTER_S)
                kills = [kill(proxy) for _ in range(AT_ONCE)]
        return kills, json.loads(result.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--services", type=int, default=0, help="more of them, with 10 endpoints each")
    args = parser.parse_args()
    found = Found()
    with topology() as net:
        pod, place = net.host(POD, "fd01::1"), net.host(CLIENT, "fd01::9")
        for _ in range(-(-args.kills // AT_ONCE)):
            found.take(*played(pod, place, objects(args.services)))
    found.tell()
    if found.failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
