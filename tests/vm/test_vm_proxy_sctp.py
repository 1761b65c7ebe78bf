"""SCTP through the service proxy: as both modes carry it between hosts, and what the data plane does with associations.

The kernel of the development machines has no SCTP.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyrun.kube.manifest import load
from pyrun.proxy.carriers import InKernel, UserSpace
from pyrun.proxy.client import DataPlane
from pyrun.proxy.hostports import bound_ports
from pyrun.proxy.messages import Settings
from pyrun.proxy.model import Options
from pyrun.proxy.objects import read_objects
from pyrun.proxy.plan import Planner
from pyrun.proxy.rules import FORWARD, SCTP, Choice, Endpoint, EndpointSet, Frontend, Rules
from pyrun.proxy.sctp import Kernel, probe
from tests.host.test_proxy_modes import NODE
from tests.support.container.runner import wait_for
from tests.support.dataplane import packed
from tests.support.proxy.sctp import PATIENCE_S, Association, Message, Opener, Server
from tests.support.proxy.topology import NODE4, NODE6, Place, topology

PODS = ("10.1.0.1", "fd01::1"), ("10.1.0.2", "fd01::2")
CLIENT, OUTSIDE = ("10.1.0.9", "fd01::9"), ("203.0.113.2", "2600:5200::2")
VIP, PORT, TARGET = "127.9.0.1", 38412, 5000  # 38412: NGAP's
MESSAGES = [
    Message(b"a", 0, 60),
    Message(os.urandom(5000), 3, 0xFFFFFFFF),
    Message(b"now", 2, 1, unordered=True),
    Message(os.urandom(90_000), 11, 7),
    Message(os.urandom(300_000), 1),
    Message(b"z", 19),
]
OBJECTS = """---
apiVersion: v1
kind: Service
metadata: {name: amf, annotations: {pyrun.io/proxy-mode: %s}}
spec:
  type: NodePort
  clusterIP: 10.96.0.1
  clusterIPs: [10.96.0.1, "fd96::1"]
  ports: [{name: ngap, port: 38412, protocol: SCTP, nodePort: 30412}]
"""
SLICE = """---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: amf-%s, labels: {kubernetes.io/service-name: amf}}
addressType: IPv%s
ports: [{name: ngap, port: 5000, protocol: SCTP}]
endpoints: [{addresses: ["%s"]}, {addresses: ["%s"]}]
"""


def opener(place: Place) -> Opener:
    return lambda family: place.open(family, socket.SOCK_STREAM, SCTP)


def a_carrier(mode: str, directory: Path) -> UserSpace | InKernel:
    if mode == "nftables":
        return InKernel(NODE.addresses)
    return UserSpace(str(directory / "plane"), NODE.addresses, print, Settings())


def test_both_modes_between_hosts(tmp_path: Path) -> None:
    assert probe() == Kernel(sockets=True, tracks=True)
    with topology() as net:
        pods = [net.host(*one) for one in PODS]
        client, outside = net.host(*CLIENT), net.host(*OUTSIDE)
        servers = [Server(address, TARGET, opener(pod)) for pod in pods for address in (pod.address4, pod.address6)]
        for mode in ("userspace", "nftables"):
            planner = Planner(NODE, Options())
            text = OBJECTS % mode + "".join(SLICE % (v, v, *(pod[v == "6"] for pod in PODS)) for v in "46")
            found = read_objects(load(text.encode(), "objects.yaml"))
            assert not found.faults
            planner.update(services=dict(found.services), slices=dict(found.slices))
            made = a_carrier(mode, tmp_path)
            try:
                made.apply(planner.rules(), None)
                for number, to in enumerate(("10.96.0.1", "fd96::1")):
                    seen: dict[str, set[str]] = {}
                    with Association.connect(
                        to, PORT, opener(client), source=CLIENT[number], out=20, most_in=30
                    ) as one:
                        for message in MESSAGES:
                            assert one.ask(message) == message, [server.ends for server in servers]
                        assert one.streams() == (30, 20)
                    for _ in range(4):
                        with Association.connect(to, PORT, opener(client), source=CLIENT[number]) as one:
                            endpoint, source = one.ask(Message(b"who")).data.decode().split()  # type: ignore[union-attr]
                            seen.setdefault(endpoint, set()).add(source)
                    right = (NODE4, NODE6)[number] if mode == "userspace" else CLIENT[number]
                    assert {frozenset(sources) for sources in seen.values()} == {frozenset((right,))}
                    assert len(seen) == 2
                with Association.connect(NODE4, 30412, opener(outside), source=OUTSIDE[0]) as one:
                    assert one.ask(Message(b"who")).data.decode().endswith(f" {NODE4}")  # type: ignore[union-attr]
                if isinstance(made, UserSpace):
                    counted = {(c.address, c.port): c.accepted for c in made.counters().frontends}  # type: ignore[union-attr]
                    assert counted[packed("10.96.0.1"), PORT] == 5 and counted[packed(NODE4), 30412] == 1
                    assert (SCTP, packed("fd96::1"), PORT) in bound_ports()
            finally:
                made.close(remove=True)
        for server in servers:
            server.close()


@pytest.mark.parametrize("mode", ["userspace", "nftables"])
def test_who_asks_where_nobody_is_is_refused_at_once(tmp_path: Path, mode: str) -> None:
    """Without endpoints, and on another port of a Service: by an ABORT, where ICMP would be ignored and the client
    would try for a minute. From a pod, from outside and from the node."""
    with topology() as net:
        client, outside = net.host(*CLIENT), net.host(*OUTSIDE)
        made = a_carrier(mode, tmp_path)
        try:
            for by in ("userspace", "nftables") if mode == "userspace" else (mode,):
                planner = Planner(NODE, Options())
                found = read_objects(load((OBJECTS % by).encode(), "objects.yaml"))
                planner.update(services=dict(found.services), slices={})
                made.apply(planner.rules(), None)
                for place in (client, outside, net.node):
                    for to in (("10.96.0.1", 38412), ("fd96::1", 38412), (NODE4, 30412), ("10.96.0.1", 38413)):
                        with pytest.raises(ConnectionRefusedError):
                            Association.connect(*to, opener(place))
        finally:
            made.close(remove=True)


class Plane:
    """A data plane on loopback with one frontend of SCTP."""

    def __init__(self, directory: Path) -> None:
        os.chmod(directory, 0o700)
        self.rules = Rules()
        self.it = DataPlane.start(str(directory), [], Settings())

    def serve(self, *endpoints: Server | Endpoint, affinity: int = 0) -> None:
        some = [Endpoint(packed(e.address), e.port) if isinstance(e, Server) else e for e in endpoints]
        choices = (Choice((), FORWARD, "set"),)
        self.rules = Rules((Frontend("amf", SCTP, packed(VIP), PORT, choices, affinity),), (EndpointSet("set", some),))
        self.it.apply(self.rules)

    @staticmethod
    def connect() -> Association:
        return Association.connect(VIP, PORT)

    def who(self) -> str:
        with self.connect() as one:
            answer = one.ask(Message(b"who"))
            assert answer is not None
            return answer.data.decode().split()[0]


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    made = Plane(tmp_path)
    yield made
    made.it.end()


@pytest.fixture
def two() -> Iterator[list[Server]]:
    made = [Server(f"127.8.0.{number}", TARGET) for number in (1, 2)]
    yield made
    for server in made:
        server.close()


def test_turns_pins_and_another_endpoint(plane: Plane, two: list[Server]) -> None:
    names = [server.name for server in two]
    plane.serve(*two)
    assert [plane.who() for _ in range(4)] == names * 2
    plane.serve(Endpoint(packed("127.8.0.3"), TARGET), two[1])
    assert {plane.who() for _ in range(3)} == {names[1]}  # nobody is at the other one
    (counted,) = plane.it.counters().frontends
    assert counted.retried >= 1 and counted.failed == 0
    plane.serve(*two, affinity=100)
    assert len({plane.who() for _ in range(4)}) == 1
    plane.serve(Endpoint(packed("127.8.0.3"), TARGET))
    with pytest.raises(ConnectionResetError):
        plane.who()


def test_an_end_and_an_abort_are_passed_on(plane: Plane, two: list[Server]) -> None:
    plane.serve(two[0])
    with plane.connect() as one:
        for number in range(50):
            one.send(Message(b"%d" % number * 1000, number % 10))
        for number in range(50):
            assert one.receive() == Message(b"%d" % number * 1000, number % 10)
    wait_for(lambda: two[0].ends == [None], PATIENCE_S, "the end arrives")
    with plane.connect() as one:
        assert one.ask(Message(b"a"))
        one.abort()
    wait_for(lambda: len(two[0].ends) == 2, PATIENCE_S, "the abort arrives")
    assert isinstance(two[0].ends[1], ConnectionResetError)
    two[0].echoes = False
    with plane.connect() as one:
        wait_for(lambda: len(two[0].accepted) == 3, PATIENCE_S, "it is accepted")
        two[0].accepted[-1].abort()
        with pytest.raises(ConnectionResetError):
            one.receive()
    with plane.connect() as one:  # the server is done, and what it has sent before arrives
        wait_for(lambda: len(two[0].accepted) == 4, PATIENCE_S, "it is accepted")
        two[0].accepted[-1].send(Message(b"bye", 5))
        two[0].accepted[-1].close()
        assert one.receive() == Message(b"bye", 5)
        assert one.receive() is None
    wait_for(lambda: plane.it.hello().connections == 0, PATIENCE_S, "none is left")


def test_what_has_no_room_waits_and_what_is_too_large_ends_it(plane: Plane, two: list[Server]) -> None:
    plane.serve(two[0])
    two[0].echoes = False
    with plane.connect() as one:
        wait_for(lambda: len(two[0].accepted) == 1, PATIENCE_S, "it is accepted")
        one.socket.setblocking(False)
        sent = 0
        with pytest.raises(BlockingIOError):
            while sent < 10_000:
                one.send(Message(b"%8d" % sent + bytes(2000), sent % 10))
                sent += 1
        one.socket.settimeout(PATIENCE_S)
        next_of = list(range(10))  # there is an order within each stream, and none between them
        for _ in range(sent):
            got = two[0].accepted[0].receive()
            assert got is not None and int(got.data[:8]) == next_of[got.stream]
            next_of[got.stream] += 10
        one.send(Message(b"last"))
        assert two[0].accepted[0].receive() == Message(b"last")
        with pytest.raises(ConnectionResetError):
            one.ask(Message(bytes(1_200_000)))
    assert plane.it.hello().refused_by_limit == 1


def test_an_upgrade_keeps_who_is_there_and_who_comes(plane: Plane, two: list[Server]) -> None:
    plane.serve(*two)
    with plane.connect() as one:
        assert one.ask(Message(b"a", 4)) == Message(b"a", 4)
        for _ in range(3):
            plane.it = plane.it.upgrade(plane.rules)
            assert {plane.who(), plane.who()} == {server.name for server in two}
        assert one.ask(Message(b"b", 4)) == Message(b"b", 4)
    plane.it.apply(Rules())
    with pytest.raises(ConnectionRefusedError):
        plane.connect()
