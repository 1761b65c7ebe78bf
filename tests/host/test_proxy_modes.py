"""Real packets in both modes against what `pyrun proxy trace` says of them: who answers, and whom he sees."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyrun.kube.addresses import address_text, parse_address, parse_prefix, port_text
from pyrun.kube.manifest import load
from pyrun.proxy.carriers import InKernel, UserSpace
from pyrun.proxy.messages import Settings
from pyrun.proxy.model import Node, Options
from pyrun.proxy.objects import read_objects
from pyrun.proxy.plan import Planner
from pyrun.proxy.rules import ACTIONS, DROP, FORWARD, TCP, UDP, Key
from pyrun.proxy.trace import trace
from tests.support.daemon import until
from tests.support.dataplane import read_all, reset
from tests.support.proxy.answers import Answer, Server, ask
from tests.support.proxy.topology import NODE4, NODE6, Place, topology

NODE = Node(
    "n1",
    (parse_address(NODE4), parse_address(NODE6)),
    pod_cidrs=(parse_prefix("10.1.0.0/16"), parse_prefix("fd01::/64")),
    service_cidrs=(parse_prefix("10.96.0.0/16"), parse_prefix("fd96::/112")),
)
ONE, TWO, POD = ("10.1.0.1", "fd01::1"), ("10.1.0.2", "fd01::2"), ("10.1.0.9", "fd01::9")
OUTSIDE, STRANGER = ("203.0.113.2", "2600:5200::2"), ("203.0.113.130", "2600:5201::2")


def service(name: str, number: int, more: str, ports: str = "{name: tcp, port: 80}") -> str:
    return f"""---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{clusterIP: 10.96.0.{number}, clusterIPs: [10.96.0.{number}, "fd96::{number}"], {more} ports: [{ports}]}}
status: {{loadBalancer: {{ingress: [{{ip: 198.51.100.{number}}}, {{ip: "2001:db8:9::{number}"}}]}}}}
"""


def slices(name: str, *endpoints: tuple[tuple[str, str], str], ports: str = "{name: tcp, port: 8080}") -> str:
    found = ""
    for index, family in enumerate(("IPv4", "IPv6")):
        some = ", ".join([f'{{addresses: ["{one[index]}"], nodeName: {node}}}' for one, node in endpoints])
        found += f"""---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-{family.lower()}, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: {family}
ports: [{ports}]
endpoints: [{some}]
"""
    return found


BOTH = "{name: tcp, port: 80, nodePort: %d}, {name: udp, port: 80, protocol: UDP, nodePort: %d}"
TARGETS = "{name: tcp, port: 8080}, {name: udp, port: 8080, protocol: UDP}"
LOCAL = "externalTrafficPolicy: Local, internalTrafficPolicy: Local,"
OBJECTS = (
    service("web", 1, "type: LoadBalancer,", BOTH % (30001, 30001))
    + slices("web", (ONE, "n1"), (TWO, "n2"), ports=TARGETS)
    + service("near", 2, f"type: LoadBalancer, {LOCAL}", BOTH % (30002, 30002))
    + slices("near", (ONE, "n1"), (TWO, "n2"), ports=TARGETS)
    + service("far", 3, f"type: LoadBalancer, {LOCAL}", BOTH % (30003, 30003))
    + slices("far", (TWO, "n2"), ports=TARGETS)
    + service("none", 4, "type: LoadBalancer,", BOTH % (30004, 30004))
    + service("walled", 5, 'type: LoadBalancer, loadBalancerSourceRanges: [203.0.113.0/25, "2600:5200::/64"],')
    + slices("walled", (ONE, "n1"))
    + service("forbidden", 6, "externalIPs: [192.0.2.1],")
    + slices("forbidden", (("127.0.0.1", "::1"), "n1"), (("169.254.169.254", "fe80::1"), "n1"))
    + service("host", 7, f"type: LoadBalancer, {LOCAL}", BOTH % (30007, 30007))
    + slices("host", ((NODE4, NODE6), "n1, targetRef: {kind: Pod, namespace: default, name: host}"), ports=TARGETS)
    + service("stream", 8, "")
    + slices("stream", (ONE, "n1"), ports="{name: tcp, port: 9090}")
)


class World:
    """The topology with its servers, and a mode that carries the rules out."""

    def __init__(self, net: Any, carrier: Any) -> None:
        self.one, self.two, self.pod = net.host(*ONE), net.host(*TWO), net.host(*POD)
        self.outside, self.stranger = net.host(*OUTSIDE), net.host(*STRANGER)
        self.node: Place = net.node
        self.servers = [Server(place, 8080) for place in (self.one, self.two, self.node)]
        self.carrier = carrier
        self.planner = Planner(NODE, Options())
        self.apply(OBJECTS, first=True)

    def apply(self, text: str, *, first: bool = False) -> None:
        found = read_objects(load(text.encode(), "objects.yaml"))
        assert not found.faults
        change = self.planner.update(services=dict(found.services), slices=dict(found.slices))
        self.carrier.apply(self.planner.rules(), None if first else change)

    def differs(self, client: Place, to: str, port: int, *, udp: bool = False) -> list[str]:
        """What is other than the rules say of one flow."""
        address = parse_address(to)
        source = client.address4 if len(address) == 4 else client.address6
        key: Key = (UDP if udp else TCP, address, port)
        verdict = trace(self.planner.rules(), parse_address(source), key)
        flow = f"{source} -> {to}:{port}/{'udp' if udp else 'tcp'}"
        if verdict.action != FORWARD:
            found = ask(client, to, port, udp=udp, silent=verdict.action == DROP)
            return [] if found == ACTIONS[verdict.action] else [f"{flow}: {found}, and not {ACTIONS[verdict.action]}"]
        right = {port_text(one.address, one.port) for one in verdict.endpoints}
        answers = [ask(client, to, port, udp=udp) for _ in range(4 * len(right))]
        odd = {one for one in answers if not isinstance(one, Answer)}
        seen = {one.endpoint: one.source for one in answers if isinstance(one, Answer)}
        if odd or set(seen) != right:
            return [f"{flow}: {sorted(seen)} {sorted(map(str, odd))}, and not {sorted(right)}"]
        wrong = []
        for endpoint in verdict.endpoints:
            replaced = verdict.choice.replace_source or address_text(endpoint.address) == source  # type: ignore[union-attr]
            if endpoint.own:  # what is for the node's own programs never leaves it, and the kernel masquerades there
                replaced = isinstance(self.carrier, UserSpace)
            was = seen[port_text(endpoint.address, endpoint.port)]
            if was != ((NODE4 if len(address) == 4 else NODE6) if replaced else source):
                wrong.append(f"{flow}: {address_text(endpoint.address)} sees {was}")
        return wrong

    def close(self) -> None:
        self.carrier.close(remove=True)
        for server in self.servers:
            server.close()


@pytest.fixture(params=["userspace", "nftables"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with topology() as net:
        tmp_path.chmod(0o700)
        own = NODE.addresses
        made: Any
        if request.param == "userspace":
            made = UserSpace(str(tmp_path / "plane"), own, lambda line: None, Settings())
        else:
            made = InKernel(own)
        there = World(net, made)
        try:
            yield there
        finally:
            there.close()


NAMES = ("web", "near", "far", "none", "walled", "forbidden", "host")


def test_what_happens_to_packets_is_what_trace_says(world: World) -> None:
    """Each address of each Service, from a pod, from an endpoint itself, from the node and from outside."""
    clients = [world.pod, world.one, world.node, world.outside, world.stranger]
    wrong: list[str] = []
    for number, name in enumerate(NAMES, 1):
        udp = name in ("web", "near", "far", "none", "host")
        places = [(f"10.96.0.{number}", 80), (f"fd96::{number}", 80), (f"198.51.100.{number}", 80)]
        places += [(NODE4, 30000 + number), (NODE6, 30000 + number)] if udp else []
        for client in clients:
            for to, port in places if name != "forbidden" else places[:2]:
                wrong += world.differs(client, to, port)
                if udp and client in (world.pod, world.outside):
                    wrong += world.differs(client, to, port, udp=True)
    assert not wrong, "\n".join(wrong)


def crosses(writer: socket.socket, reader: socket.socket, data: bytes) -> bool:
    """Whether all of it arrives, and then the end of that half."""

    def write() -> None:
        writer.sendall(data)
        writer.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=write)
    thread.start()
    found = hashlib.md5(read_all(reader)).digest()
    thread.join()
    return found == hashlib.md5(data).digest()


@pytest.mark.parametrize("to", ["10.96.0.8", "fd96::8"])
def test_half_closed_connections_and_resets(world: World, to: str) -> None:
    """Scenario 5: whoever ends first, the other half goes on; a reset is a reset at the other end. And the data plane
    asks idle ends whether they live."""
    data, ours = os.urandom(5_000_000), isinstance(world.carrier, UserSpace)
    with world.one.listen(9090) as server:
        for client_first in (True, False):
            with world.pod.connect(to, 80) as near, server.accept()[0] as far:
                assert far.getpeername()[0].removeprefix("::ffff:") == near.getsockname()[0]
                if ours:
                    until(lambda: len(asked_soon(world.node)) == 2, lambda: world.node.run("ss", "-tnoH"))
                one, other = (near, far) if client_first else (far, near)
                assert crosses(one, other, data) and crosses(other, one, data)
        for client_first in (True, False):
            with world.pod.connect(to, 80) as near, server.accept()[0] as far:
                far.sendall(b"x")
                assert near.recv(1) == b"x"
                reset(near if client_first else far)
                with pytest.raises(ConnectionResetError):
                    (far if client_first else near).recv(1)


def asked_soon(node: Place) -> list[str]:
    """Sockets of the node that send keepalives within a minute of idling."""
    lines = node.run("ss", "-tnoH", "state", "established").splitlines()
    return [line for line in lines if re.search(r"timer:\(keepalive,(1min|[\d.]+(ms|sec)?),", line)]


def test_another_port_of_a_cluster_ip_is_rejected(world: World) -> None:
    wrong: list[str] = []
    for client in (world.pod, world.outside, world.node):
        for to in ("10.96.0.1", "fd96::1"):
            wrong += world.differs(client, to, 81) + world.differs(client, to, 81, udp=True)
    assert not wrong, "\n".join(wrong)


def test_an_address_that_no_service_has_answers_nobody(world: World) -> None:
    for client in (world.pod, world.outside, world.node):
        for to in ("10.96.0.200", "fd96::200"):
            right = ("drop", "reject") if isinstance(world.carrier, UserSpace) else ("drop",)
            assert ask(client, to, 80, silent=True) in right


def test_a_program_of_the_node_is_no_service(world: World) -> None:
    """What listens on any address of the node is not met at a Service's: not where it has no endpoint, and not on
    another of its ports. Else pods would reach the node's sshd by a Service's address (kubernetes#72236)."""
    wrong: list[str] = []
    with contextlib.ExitStack() as stack:
        for port in (80, 81):
            stack.enter_context(world.node.listen(port))
        stack.enter_context(world.node.open(socket.AF_INET6, socket.SOCK_DGRAM)).bind(("::", 81))
        for client in (world.pod, world.outside, world.node):
            for to, port in (("10.96.0.4", 80), ("fd96::4", 80), ("198.51.100.4", 80), ("10.96.0.1", 81)):
                wrong += world.differs(client, to, port) + world.differs(client, to, port, udp=True)
    assert not wrong, "\n".join(wrong)
