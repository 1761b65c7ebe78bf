"""The data plane's UDP: flows and where they go when endpoints change. All on 127/8."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyrun.proxy.messages import Settings
from pyrun.proxy.rules import FORWARD, REJECT, TCP, UDP, Choice, Endpoint, EndpointSet, Frontend, Rules
from tests.support.dataplane import PATIENCE_S, Plane, packed
from tests.support.serving import Serving

VIP = "127.9.0.1"


class Echo:
    """Answers each datagram with its name, a colon, and the datagram."""

    def __init__(self, address: str, port: int = 0) -> None:
        self.name = address
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 21)
        self.socket.bind((address, port))
        self.port: int = self.socket.getsockname()[1]
        self.got: list[bytes] = []
        self._serving = Serving()
        self._serving.hold(self.socket)
        self._serving.run(self._serve)

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(packed(self.name), self.port)

    def _serve(self) -> None:
        while True:
            data, peer = self.socket.recvfrom(65536)
            if peer is None:  # it was shut down
                return
            self.got.append(data)
            self.socket.sendto(self.name.encode() + b":" + data[:1000], peer)

    def close(self) -> None:
        self._serving.end()


@contextlib.contextmanager
def echoes(*numbers: int) -> Iterator[list[Echo]]:
    made = [Echo(f"127.8.0.{n}") for n in numbers]
    try:
        yield made
    finally:
        for e in made:
            e.close()


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    made = Plane(tmp_path)
    yield made
    made.close()


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind((VIP, 0))
        return int(s.getsockname()[1])


def serve(plane: Plane, port: int, *endpoints: Echo | Endpoint, affinity: int = 0) -> None:
    some = tuple(e.endpoint if isinstance(e, Echo) else e for e in endpoints)
    choice = Choice((), FORWARD, "u") if some else Choice((), REJECT)
    sets = (EndpointSet("u", some),) if some else ()
    plane.it.apply(Rules((Frontend("u", UDP, packed(VIP), port, (choice,), affinity),), sets))


def client(port: int) -> socket.socket:
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(PATIENCE_S)
    s.connect((VIP, port))
    return s


def ask(s: socket.socket, data: bytes = b"x") -> str:
    """Who answers; asked again each second, as datagrams may be lost."""
    s.settimeout(1)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        s.send(data)
        with contextlib.suppress(TimeoutError):
            return s.recv(65536).split(b":")[0].decode()
    raise AssertionError("no answer")


def test_flows_take_turns_and_keep_their_endpoint(plane: Plane) -> None:
    port = free_port()
    with echoes(1, 2, 3) as all:
        serve(plane, port, *all)
        clients = [client(port) for _ in range(6)]
        names = [ask(c) for c in clients]
        assert names == [e.name for e in all] * 2
        assert [ask(c) for c in clients] == names
        assert plane.it.hello().flows == 6
        for c in clients:
            c.close()


def test_answers_come_from_the_address_asked(plane: Plane) -> None:
    port = free_port()
    with echoes(1) as one, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        serve(plane, port, *one)
        s.settimeout(PATIENCE_S)
        s.sendto(b"x", (VIP, port))
        assert s.recvfrom(100)[1] == (VIP, port)


@pytest.mark.parametrize("size", [0, 1, 1472, 9000, 65507])
def test_datagrams_keep_their_bounds(plane: Plane, size: int) -> None:
    port, data = free_port(), bytes(range(256)) * 256
    with echoes(1) as (one,), client(port) as s:
        serve(plane, port, one)
        assert ask(s, data[:size]) == one.name
        assert data[:size] in one.got


def test_a_burst_that_is_joined_comes_apart_again(plane: Plane) -> None:
    """UDP_SEGMENT at the client, UDP_GRO and UDP_SEGMENT at the data plane."""
    port = free_port()
    with echoes(1) as (one,), client(port) as s:
        serve(plane, port, one)
        ask(s)
        one.got.clear()
        s.setsockopt(socket.SOL_UDP, 103, 1200)  # UDP_SEGMENT
        burst = b"".join(bytes([n]) * 1200 for n in range(40)) + b"tail"
        s.send(burst)
        deadline = time.monotonic() + PATIENCE_S
        while len(one.got) < 41 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert b"".join(one.got) == burst and [len(d) for d in one.got] == [1200] * 40 + [4]


def test_flows_to_an_endpoint_that_is_gone_move_at_once(plane: Plane) -> None:
    """kubernetes#139628, #105657: a sender that never stops keeps no dead endpoint."""
    port = free_port()
    with echoes(1, 2) as (one, two), client(port) as s:
        serve(plane, port, one)
        assert ask(s) == one.name
        serve(plane, port, two)
        one.got.clear()
        assert ask(s) == two.name
        assert not one.got


def test_a_one_way_sender_reaches_the_first_endpoint_that_appears(plane: Plane) -> None:
    """A service that was scaled to nothing and comes back; meanwhile the sender is told that nobody is there."""
    port = free_port()
    with echoes(1) as (one,), client(port) as s:
        serve(plane, port)
        refused = 0
        deadline = time.monotonic() + PATIENCE_S
        while not refused and time.monotonic() < deadline:
            try:
                s.send(b"x")
                time.sleep(0.01)
            except ConnectionRefusedError:
                refused += 1
        assert refused
        serve(plane, port, one)
        while not one.got and time.monotonic() < deadline:
            with contextlib.suppress(ConnectionRefusedError):
                s.send(b"x")
            time.sleep(0.01)
        assert one.got


def test_a_flow_leaves_an_endpoint_that_refuses(plane: Plane) -> None:
    """An ICMP error says that nobody is at its port: the next datagram goes to another one."""
    port = free_port()
    with echoes(1, 2) as (one, two), client(port) as s:
        serve(plane, port, one, two)
        assert ask(s) == one.name
        one.close()
        assert ask(s) == two.name


def test_a_client_with_affinity_keeps_its_endpoint_over_its_flows(plane: Plane) -> None:
    port = free_port()
    with echoes(1, 2) as both:
        serve(plane, port, *both, affinity=600)
        clients = [client(port) for _ in range(5)]
        assert len({ask(c) for c in clients}) == 1
        for c in clients:
            c.close()


def test_a_flow_without_an_answer_is_forgotten_sooner(plane: Plane) -> None:
    plane.it.set(Settings(udp_new_s=1))
    port, deaf = free_port(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    deaf.bind(("127.8.0.1", 0))
    with deaf, client(port) as s:
        serve(plane, port, Endpoint(packed("127.8.0.1"), deaf.getsockname()[1]))
        s.send(b"x")
        deaf.settimeout(PATIENCE_S)
        assert deaf.recv(10) == b"x"
        deadline = time.monotonic() + PATIENCE_S
        while plane.it.hello().flows:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_flood_of_sources_fills_no_more_than_the_table(plane: Plane) -> None:
    """Forged sources get no answer; a flow that has had one survives them, whatever their number."""
    plane.it.set(Settings(udp_flows=64, udp_source=32))
    port = free_port()
    deaf = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    deaf.bind(("127.8.0.9", 0))
    with echoes(1) as (one,), client(port) as s, deaf:
        forged = Choice(((packed("127.1.0.0"), 16),), FORWARD, "deaf")
        frontend = Frontend("u", UDP, packed(VIP), port, (forged, Choice((), FORWARD, "one")))
        nobody = Endpoint(packed("127.8.0.9"), deaf.getsockname()[1])
        sets = (EndpointSet("one", (one.endpoint,)), EndpointSet("deaf", (nobody,)))
        plane.it.apply(Rules((frontend,), sets))
        assert ask(s) == one.name
        before = plane.it.counters().frontends[0].accepted
        for n in range(3000):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as f:
                f.bind((f"127.1.{n >> 8}.{n & 255}", 0))
                f.sendto(b"", (VIP, port))
        state = plane.it.hello()
        assert 32 < state.flows <= 64
        assert ask(s) == one.name
        assert plane.it.counters().frontends[0].accepted - before > 64
        assert {e.connected for e in plane.it.counters().endpoints if e.port == one.port} == {1}


def test_one_source_has_a_share_and_its_oldest_flow_makes_room(plane: Plane) -> None:
    plane.it.set(Settings(udp_source=8))
    port = free_port()
    with echoes(1) as (one,), contextlib.ExitStack() as stack:
        serve(plane, port, one)
        for _ in range(20):
            assert ask(stack.enter_context(client(port))) == one.name
        assert plane.it.hello().flows == 8


def test_sockets_of_frontends_are_within_the_bound_of_descriptors(plane: Plane) -> None:
    """Else many Services of UDP would take those of connections, and nothing could be accepted any more."""

    def limit() -> int:
        with contextlib.suppress(ConnectionError):  # refused, as no frontend has it; by then the limit is as it is now
            plane.ask()
        return plane.it.hello().limit

    choice = (Choice((), FORWARD, "u"),)
    some = EndpointSet("u", (Endpoint(packed("127.8.0.1"), 9),))
    tcp = Frontend("t", TCP, packed(VIP), plane.port, choice)
    plane.it.apply(Rules((tcp,), (some,)))
    before, count = limit(), 1000
    many = [Frontend("u", UDP, packed(f"127.10.{n >> 8}.{n & 255}"), 5353, choice) for n in range(count)]
    plane.it.apply(Rules((tcp, *many), (some,)))
    assert limit() == max(16, before - (count - 64) // 2)
    plane.it.apply(Rules((tcp,), (some,)))
    assert limit() == before
