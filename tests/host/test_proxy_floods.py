"""Floods at the service proxy, bounded in count and time: who else calls is served meanwhile. Larger ones: make
flood-proxy. Those of datagrams are in test_dataplane_udp.py."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import selectors
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyrun.errors import PyrunError
from pyrun.proxy import client
from pyrun.proxy.messages import Counters, Settings
from pyrun.proxy.rules import UDP, Endpoint, EndpointSet, Frontend, Rules
from tests.host import test_dataplane_udp as udp
from tests.support.daemon import until
from tests.support.dataplane import PATIENCE_S, Plane, forward, packed, servers
from tests.support.proxy.answers import Answer, Server, ask
from tests.support.proxy.objects import service, slice_of
from tests.support.proxy.running import running
from tests.support.proxy.topology import NODE4, Place, topology
from tests.support.serving import end_threads

VIP, POD, CLIENT, ENEMY = "10.96.0.1", "10.1.0.1", "10.1.0.9", "10.1.0.66"
FORGED = "198.18"  # a network that nobody has, and whose answers are lost
SYNS = 9000  # more than two backlogs of the listener


# --- of segments that begin a connection ------------------------------------------------------------------------------


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def syn(source: bytes, port: int, to: bytes, to_port: int) -> bytes:
    """An IPv4 packet (RFC 9293 3.1). The kernel puts the header's length and checksum in."""
    head = struct.pack("!HHIIBBHHH", port, to_port, random.getrandbits(32), 0, 5 << 4, 2, 65535, 0, 0)
    total = checksum(source + to + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(head)) + head)
    head = head[:16] + struct.pack("!H", total) + head[18:]
    return struct.pack("!BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, 64, socket.IPPROTO_TCP, 0, source, to) + head


def forged_source(number: int) -> bytes:
    return packed(f"{FORGED}.{number >> 8 & 0xFF}.{number & 0xFF}")


def cookies_sent() -> int:
    """SYN cookies of this thread's network namespace: how often the queue of half-open connections was full."""
    names, values = [
        line.split()
        for line in Path("/proc/thread-self/net/netstat").read_text().splitlines()
        if line.startswith("TcpExt:")
    ]
    return int(values[names.index("SyncookiesSent")])


def hold(place: Place, to: str, port: int, count: int) -> list[socket.socket]:
    """Connections that say nothing; as many as are taken."""
    held = []
    for _ in range(count):
        s = place.open(socket.AF_INET, socket.SOCK_STREAM)
        held.append(s)
        with contextlib.suppress(ConnectionError):
            s.connect((to, port))
    return held


def test_of_half_open_connections_and_of_health_checks(tmp_path: Path) -> None:
    """One pod begins thousands of connections of others and ends none, and holds what it can of the port that load
    balancers ask: another pod is served, and the balancer told that this node has an endpoint."""
    with topology() as net, contextlib.ExitStack() as stack:
        pod, client, enemy = net.host(POD, "fd01::1"), net.host(CLIENT, "fd01::9"), net.host(ENEMY, "fd01::66")
        net.node.run("ip", "route", "add", f"{FORGED}.0.0/16", "via", ENEMY, "dev", "pod2", "onlink")
        enemy.run("ip", "route", "add", "blackhole", f"{FORGED}.0.0/16")
        stack.callback(Server(pod, 8080).close)
        local = "type: LoadBalancer, externalTrafficPolicy: Local, healthCheckNodePort: 31000"
        text = service("web", VIP, local) + slice_of("web", POD, node="n1")
        stack.enter_context(running(tmp_path, "userspace", text))
        until(lambda: isinstance(ask(client, VIP, 80), Answer), "it is never served")
        raw = stack.enter_context(enemy.open(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW))
        for number in range(SYNS):
            raw.sendto(syn(forged_source(number), 1024 + number, packed(VIP), 80), (VIP, 0))
        assert cookies_sent() > 0  # or it was no flood
        assert all(isinstance(ask(client, VIP, 80), Answer) for _ in range(20))
        for port in (31000, 10256):
            held = hold(enemy, NODE4, port, 300)
            with client.connect(NODE4, port) as s:
                s.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
                assert s.recv(12) == b"HTTP/1.1 200", port
            for s in held:
                s.close()


# --- of connections that are held -------------------------------------------------------------------------------------


class Holder:
    """A server that says one byte and keeps every connection; one thread, whatever their number."""

    def __init__(self, address: str) -> None:
        self.socket = socket.create_server((address, 0), backlog=4096)
        self.endpoint = Endpoint(packed(address), self.socket.getsockname()[1])
        self.got = 0
        self._all = selectors.DefaultSelector()
        self._all.register(self.socket, selectors.EVENT_READ)
        self._wake, wake = socket.socketpair()
        self._all.register(wake, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, args=[wake], daemon=True)
        self._thread.start()

    def _run(self, wake: socket.socket) -> None:
        while True:
            for key, _ in self._all.select():
                one = key.fileobj
                assert isinstance(one, socket.socket)
                if one is wake:
                    return
                if one is self.socket:
                    made, _ = one.accept()
                    made.send(b"x")
                    self._all.register(made, selectors.EVENT_READ)
                    continue
                with contextlib.suppress(ConnectionError):
                    if data := one.recv(4096):
                        self.got += len(data)
                        continue
                self._all.unregister(one)
                one.close()

    def close(self) -> None:
        self._wake.close()
        end_threads(self._thread)
        for key in list(self._all.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._all.close()


@pytest.fixture
def many_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def holder() -> Iterator[Holder]:
    made = Holder("127.8.0.1")
    yield made
    made.close()


def is_served(plane: Plane, source: str) -> bool:
    try:
        with plane.connect(source=source) as s:
            return s.recv(1) == b"x"
    except ConnectionError:
        return False


@pytest.mark.usefixtures("many_files")
def test_of_connections_that_send_a_byte_now_and_then(tmp_path: Path, holder: Holder) -> None:
    """Slow-loris: one client holds what it gets, and keeps all of it alive. Each of a hundred others gets in."""
    plane = Plane(tmp_path, Settings(max_connections=1000))
    held: list[socket.socket] = []
    try:
        plane.it.set(plane.settings)
        plane.serve(holder.endpoint)
        for _ in range(1250):
            with contextlib.suppress(ConnectionError):
                s = plane.connect(source="127.0.6.6")
                if s.recv(1):
                    held.append(s)
        assert len(held) == 900  # nine tenths
        for round_ in range(2):
            for s in held:
                s.send(b".")
            assert all(is_served(plane, f"127.0.7.{1 + round_ * 50 + n}") for n in range(50))
        until(lambda: holder.got == 2 * len(held), "not all of it arrives")
        assert not is_served(plane, "127.0.6.6")
        assert plane.it.hello().connections <= 1000
    finally:
        for s in held:
            s.close()
        plane.close()


# --- of what the machine gives ----------------------------------------------------------------------------------------


def keep(s: socket.socket) -> None:
    while part := s.recv(10):
        s.sendall(part)


@contextlib.contextmanager
def plane_with(directory: Path, descriptors: int) -> Iterator[Plane]:
    """A data plane that can have no more."""
    real, directory = client.BINARY, directory / str(descriptors)
    directory.mkdir()
    wrapper = directory / "pyrun-dataplane"
    wrapper.write_text(f'#!/bin/sh\nulimit -n {descriptors}\nexec {real} "$@"\n')
    wrapper.chmod(0o755)
    client.BINARY = str(wrapper)
    try:
        made = Plane(directory)
    finally:
        client.BINARY = real
    try:
        yield made
    finally:
        made.close()


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    """EMFILE: what is connected goes on, it is said, no endpoint is blamed, and all is well when there are some
    again."""
    with servers(1, handler=keep) as (server,):
        with plane_with(tmp_path, 512) as plane:
            plane.serve(server)
            with plane.connect() as s:
                assert echoed(s)
            until(lambda: plane.it.hello().connections == 0, "a connection stays for ever")
            used = len(os.listdir(f"/proc/{plane.it.pid}/fd"))
        refused = 0
        for spare in (6, 7):  # a connection takes two: it finds none, or one, and is reset
            with plane_with(tmp_path, used + spare) as plane:
                plane.serve(server)
                refused += use_up(plane)
        assert refused


def test_no_descriptor_is_left_for_datagrams(tmp_path: Path) -> None:
    """No endpoint is blamed, and the client's next datagram is tried anew."""
    port = udp.free_port()
    with servers(1, handler=keep) as (server,), udp.echoes(1, 2) as all, udp.client(port) as s:
        where = Frontend("u", UDP, packed(udp.VIP), port, forward("u"))
        endpoints = EndpointSet("u", tuple(one.endpoint for one in all))

        def serve(plane: Plane) -> int:
            plane.serve(server)
            plane.it.apply(Rules((*plane.rules.frontends, where), (*plane.rules.sets, endpoints)))
            return len(os.listdir(f"/proc/{plane.it.pid}/fd"))

        with plane_with(tmp_path, 512) as plane:
            used = serve(plane)
        with plane_with(tmp_path, used + 6) as plane, contextlib.ExitStack() as stack:
            serve(plane)
            for _ in range(8):
                with contextlib.suppress(ConnectionError):
                    stack.enter_context(plane.connect())
            until(lambda: plane.it.hello().is_short, "it never says that it has no descriptor")
            for one in (stack.enter_context(udp.client(port)) for _ in range(3)):  # for one there may be one yet
                one.send(b"x")
            s.send(b"lost")
            for _ in range(5):  # turns of its loop
                assert plane.it.hello().flows < 3
            stack.close()
            counters = until(lambda: counters_of(plane), "it has no descriptor for ever")
            (mine,) = [one for one in counters.frontends if one.protocol == UDP]
            assert mine.failed and not mine.retried and not [one for one in counters.endpoints if one.failed]
            assert udp.ask(s) and b"lost" not in [part for one in all for part in one.got]


def counters_of(plane: Plane) -> Counters | None:
    """Once nothing is connected. They take a descriptor, which what waits to be accepted may take first."""
    with contextlib.suppress(PyrunError):
        return plane.it.counters() if plane.it.hello().connections == 0 else None
    return None


def use_up(plane: Plane) -> int:
    """Of its descriptors all, by three connections and some that wait; returns how many were refused."""
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(plane.connect()) for _ in range(3)]
        assert all(echoed(s) for s in held)
        more = [stack.enter_context(begun(plane)) for _ in range(4)]
        until(lambda: plane.it.hello().is_short, "it never says that it has no descriptor")
        assert all(echoed(s) for s in held)
        for s in (*held, *more[:2]):
            s.close()
        for s in more[2:]:
            with contextlib.suppress(ConnectionError):
                assert echoed(s)
            s.close()
        for _ in range(2):  # then one more, which finds what it needs
            until(lambda: plane.it.hello().connections == 0, "connections stay for ever")
            with plane.connect() as s:
                assert echoed(s)
        (endpoint,) = plane.it.counters().endpoints
        assert endpoint.failed == 0
        return plane.it.hello().refused_by_limit


def begun(plane: Plane) -> socket.socket:
    """A connection, which may have been reset before its client knows that there is one."""
    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    s.setblocking(False)
    s.connect_ex(("127.9.0.1", plane.port))
    s.settimeout(PATIENCE_S)
    return s


def echoed(s: socket.socket) -> bool:
    s.sendall(b"x")
    return s.recv(1) == b"x"
