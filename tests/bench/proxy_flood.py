"""Floods at the service proxy, in full: what others notice, and what the data plane has at most.

    python -m tests.bench.proxy_flood [--connections N] [--datagrams N] [--broken N]      (root; make flood-proxy)

A pod opens so many connections and holds what it gets; then it sends a datagram each from so many forged sources.
Before and meanwhile another pod asks for one connection after another, and keeps a flow of datagrams. Then the data
plane is killed, and so many broken Services are read. Each number is printed; a failed request, or a flow that moves,
ends it with 1. The machine is shared by all of them, so times tell of it as well: flood and requests are threads of one
Python process.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import resource
import selectors
import signal
import socket
import statistics
import struct
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from pyrun.proxy.model import Fault
from pyrun.proxy.readers import read_service
from tests.bench.dns import cpu_s, pss_mb
from tests.support.daemon import until
from tests.support.dataplane import packed
from tests.support.proxy.answers import Answer, Server, ask
from tests.support.proxy.objects import service, slice_of
from tests.support.proxy.running import Proxy, running
from tests.support.proxy.topology import Place, topology

VIP, PODS, CLIENT, ENEMY = "10.96.0.1", ("10.1.0.1", "10.1.0.2"), "10.1.0.9", "10.1.0.66"
FORGED = "198.18.0.0/15"  # a network that nobody has
ASKED = 300


def asked(client: Place, seconds: float = 0.0) -> list[float]:
    """Milliseconds of ASKED connections with an answer each, or of as many as there are in so many seconds."""
    times: list[float] = []
    deadline = time.monotonic() + seconds
    while len(times) < ASKED or time.monotonic() < deadline:
        begun = time.perf_counter()
        found = ask(client, VIP, 80)
        if not isinstance(found, Answer):
            sys.exit(f"a request of another pod came to {found}")
        times.append(1000 * (time.perf_counter() - begun))
    return times


def told(what: str, times: list[float]) -> None:
    times.sort()
    print(
        f"{what}: {len(times)} asked, p50 {statistics.median(times):.2f} ms, p99 {times[len(times) * 99 // 100]:.2f} ms"
    )


class Holder:
    """Opens connections to the Service and keeps those that are not reset, from a thread of its own."""

    def __init__(self, place: Place, count: int) -> None:
        self.tried = self.reset = 0
        self._place, self._count = place, count
        self._all = selectors.DefaultSelector()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def held(self) -> int:
        return len(self._all.get_map() or ())

    def _run(self) -> None:
        while not self._ended.is_set():
            if self.tried < self._count:
                for _ in range(64):
                    self._open()
            for key, _ in self._all.select(0.0 if self.tried < self._count else 0.1):
                self._look(key.fileobj)

    def _open(self) -> None:
        s = self._place.open(socket.AF_INET, socket.SOCK_STREAM)
        s.setblocking(False)
        s.connect_ex((VIP, 80))
        self._all.register(s, selectors.EVENT_READ)
        self.tried += 1

    def _look(self, s: Any) -> None:
        """Readable: it has an answer, or has been reset."""
        with contextlib.suppress(OSError):
            if s.recv(100):
                return
        self.reset += 1
        self._all.unregister(s)
        s.close()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        for key in list(self._all.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._all.close()


class Keeper(Server):
    """A server whose connections stay after the answer, until the client ends them."""

    def _tcp(self, server: socket.socket, name: str) -> None:
        poll = selectors.DefaultSelector()
        poll.register(server, selectors.EVENT_READ)
        with contextlib.suppress(OSError, ValueError):
            while True:
                for key, _ in poll.select():
                    if key.fileobj is server:
                        s, peer = server.accept()
                        s.sendall(f"{name} {peer[0]}".encode())
                        poll.register(s, selectors.EVENT_READ)
                        continue
                    poll.unregister(key.fileobj)
                    key.fileobj.close()  # type: ignore[union-attr]

    def _udp(self, server: socket.socket, name: str) -> None:
        while True:
            try:
                _, peer = server.recvfrom(100)
                if peer is None:
                    return
                server.sendto(f"{name} {peer[0]}".encode(), peer)
            except OSError:  # to a forged source there is no way
                if server.fileno() < 0:
                    return


def forged(number: int, head: bytes) -> bytes:
    source = (int.from_bytes(packed("198.18.0.0"), "big") + number % (1 << 17)).to_bytes(4, "big")
    return head[:12] + source + packed(VIP) + struct.pack("!HHHH", 1024 + (number >> 17), 53, 9, 0) + b"x"


def datagrams(enemy: Place, client: Place, count: int) -> None:
    head = struct.pack("!BBHHHBBH8x", 0x45, 0, 0, 0, 0, 64, socket.IPPROTO_UDP, 0)
    with (
        client.open(socket.AF_INET, socket.SOCK_DGRAM) as flow,
        enemy.open(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw,
    ):
        flow.connect((VIP, 53))
        flow.settimeout(2)
        owners, lost, last = set(), 0, 0.0
        for number in range(count):
            raw.sendto(forged(number, head), (VIP, 0))
            if time.monotonic() >= last + 0.02:
                last = time.monotonic()
                try:
                    flow.send(b"who")
                    owners.add(flow.recv(100).split()[0].decode())
                except TimeoutError:
                    lost += 1
        print(f"  a flow meanwhile: answered by {', '.join(sorted(owners))}; {lost} datagrams without an answer")
        if len(owners) != 1:
            sys.exit("the flow of another pod moved")


def flood(proxy: Proxy, client: Place, enemy: Place, args: argparse.Namespace) -> None:
    pid: int = until(proxy.plane_pid, "there is no data plane")
    told("before", asked(client))
    begun = cpu_s(pid)
    holder = Holder(enemy, args.connections)
    try:
        meanwhile = asked(client)
        while holder.tried < args.connections:
            meanwhile += asked(client)
        told(f"while a pod opens {args.connections} connections", meanwhile)
        told(f"while it holds {holder.held} of them ({holder.reset} were reset)", asked(client))
        print(f"  the data plane: {pss_mb(pid):.1f} MB PSS, {len(os.listdir(f'/proc/{pid}/fd'))} descriptors")
        print(f"  its CPU time for all that: {cpu_s(pid) - begun:.2f} s")
    finally:
        holder.close()
    told("afterwards", asked(client))
    begun = cpu_s(pid)
    datagrams(enemy, client, args.datagrams)
    print(f"{args.datagrams} datagrams of forged sources: {cpu_s(pid) - begun:.2f} s of CPU, {pss_mb(pid):.1f} MB PSS")
    print(f"  {len(os.listdir(f'/proc/{pid}/fd'))} descriptors")
    told("afterwards", asked(client))
    os.kill(pid, signal.SIGKILL)
    begun = time.perf_counter()
    found = ask(client, VIP, 80)
    print(f"the data plane killed: the next connection is answered after {1000 * (time.perf_counter() - begun):.0f} ms")
    if not isinstance(found, Answer):
        sys.exit(f"after a kill a request came to {found}")


def broken(count: int) -> None:
    """Each is named, and what is right is taken."""
    begun = time.process_time()
    faults: list[Fault] = []
    wrong: list[Any] = [7, "x", None, [], {"a": 1}, -1, 1 << 70]
    taken = 0
    for number in range(count):
        value = {"kind": "Service", "apiVersion": "v1", "metadata": {"name": f"s{number}"}}
        spec = {"clusterIP": random.choice(wrong), "ports": random.choice(wrong), "type": random.choice(wrong)}
        taken += read_service({**value, "spec": spec}, f"Service default/s{number}", faults) is not None
    named = len({fault.origin for fault in faults})
    took = time.process_time() - begun
    print(
        f"{count} Services with fields of any kind: faults of {named} named, {taken} taken in part, {took:.1f} s of CPU"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=50_000)
    parser.add_argument("--datagrams", type=int, default=1_000_000)
    parser.add_argument("--broken", type=int, default=1_000_000)
    args = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(f"descriptors of a process: {hard}")
    with tempfile.TemporaryDirectory() as directory, topology() as net, contextlib.ExitStack() as stack:
        pods = [net.host(one, f"fd01::{at}") for at, one in enumerate(PODS, 1)]
        client, enemy = net.host(CLIENT, "fd01::9"), net.host(ENEMY, "fd01::66")
        net.node.run("ip", "route", "add", FORGED, "via", ENEMY, "dev", "pod3", "onlink")
        for place in (*pods, enemy):
            place.run("ip", "route", "add", "blackhole", FORGED)
        for pod in pods:
            stack.callback(Keeper(pod, 8080).close)
        both = "{name: tcp, port: 80}, {name: dns, port: 53, protocol: UDP}"
        targets = "{name: tcp, port: 8080}, {name: dns, port: 8080, protocol: UDP}"
        text = service("web", VIP, ports=both) + slice_of("web", *PODS, ports=targets)
        proxy = stack.enter_context(running(Path(directory) / "proxy", "userspace", text))
        flood(proxy, client, enemy, args)
    broken(args.broken)


if __name__ == "__main__":
    main()
