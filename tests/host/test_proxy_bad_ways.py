"""Endpoints that can't be reached, each in its way: the data plane hears of it, and another one answers. And what a
router tells of a packet that keeps its client's address is heard by who sent it. And pods on a bridge, whose answers
take a way of their own."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyrun.cli.main import main
from pyrun.proxy.bridges import bridged
from tests.support.daemon import until
from tests.support.proxy.answers import Answer, Server, ask, text_of
from tests.support.proxy.objects import service, slice_of
from tests.support.proxy.running import Proxy, running
from tests.support.proxy.topology import NODE4, Place, Topology, new_namespace, packed, topology
from tests.support.proxy.world import PODS, VIP, World, answers

NO_ROUTE, UNREACHABLE, PROHIBITED, TOLD, SILENT, FAR = (f"198.51.100.{n}" for n in (1, 2, 3, 4, 5, 6))
VIP6, NARROW = "fd96::6", 700
KINDS = [NO_ROUTE, UNREACHABLE, PROHIBITED, TOLD, SILENT]
ASKED = 6
FIREWALL = f"""table inet wall {{
chain forward {{ type filter hook forward priority filter; policy accept;
ip daddr {TOLD} reject with icmp type host-unreachable
ip daddr {SILENT} drop
}}
}}
"""


@pytest.fixture
def net() -> Iterator[Topology]:
    with topology() as made:
        yield made


@pytest.fixture
def world(net: Topology) -> Iterator[World]:
    """No way leads to NO_ROUTE; two more the node refuses itself; the next ones a router, which is a pod here, says are
    not there; and of SILENT nobody tells anything."""
    made = World(net)
    router = made.pods[3]
    net.node.run("ip", "route", "add", "unreachable", UNREACHABLE)
    net.node.run("ip", "route", "add", "prohibit", PROHIBITED)
    for address in (TOLD, SILENT):
        behind(net, address, router)
    router.run("nft", "-f", "-", input=FIREWALL)
    router.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.icmp_ratelimit=0")
    try:
        yield made
    finally:
        made.close()


def behind(net: Topology, address: str, router: Place) -> None:
    net.node.run("ip", "route", "add", address, "via", router.address4, "dev", "pod3", "onlink")


def failed(proxy: Proxy, capfd: pytest.CaptureFixture[str]) -> dict[str, int]:
    """By endpoint, how many connections it did not take."""
    capfd.readouterr()
    assert main(["proxy", "top", "--once", "--format", "json", "--state", str(proxy.state)]) == 0
    return {one["address"]: one["failed"] for one in json.loads(capfd.readouterr().out)["endpoints"]}


def test_another_endpoint_answers(world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Scenario 3. One that is said not to be there is left at once, and not passed over afterwards, as is who is
    silent for a second."""
    vips = {kind: f"10.96.1.{at}" for at, kind in enumerate(KINDS)}
    text = "".join(
        service(f"s{at}", vips[kind]) + slice_of(f"s{at}", kind, PODS[at % 2][0]) for at, kind in enumerate(KINDS)
    )
    with running(tmp_path, "userspace", text) as proxy:
        for at, kind in enumerate(KINDS):
            assert answers(world.client, ASKED, vips[kind]) == [PODS[at % 2][0]] * ASKED
        found = failed(proxy, capfd)
        assert [found[kind] for kind in KINDS[:4]] == [ASKED] * 4
        assert 1 <= found[SILENT] < ASKED


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_flow_that_is_refused_goes_elsewhere(world: World, tmp_path: Path, family: socket.AddressFamily) -> None:
    """The refusal names the client's address, which the datagram had; it is the data plane's all the same."""
    six = family == socket.AF_INET6
    vip, dead, live = (VIP6 if six else VIP), PODS[0][six], PODS[1][six]

    def slice_with(name: str, address: str, port: int) -> str:
        ports = f"{{name: dns, port: {port}, protocol: UDP}}"
        made = slice_of("dns", f'"{address}"', ports=ports).replace("dns-1", name)
        return made.replace("IPv4", "IPv6") if six else made

    text = service("dns", vip, ports="{name: dns, port: 53, protocol: UDP}")
    text += slice_with("a", dead, 9) + slice_with("b", live, 8080)
    with running(tmp_path, "userspace", text), world.client.open(family, socket.SOCK_DGRAM) as flow:
        flow.connect((vip, 53))
        flow.settimeout(1)
        until(lambda: answered(flow) == text_of(live, 8080), "the flow stays where nobody is")


def answered(flow: socket.socket) -> str:
    """By whom one datagram was; "" for nobody."""
    flow.send(b"who")
    try:
        return flow.recv(100).split()[0].decode()
    except TimeoutError:
        return ""


def test_a_narrow_link_on_the_way(net: Topology, world: World, tmp_path: Path) -> None:
    """A router says how much its next link takes: segments become smaller, and all bytes arrive."""
    router, far = world.pods[3], world.pods[0]
    far.run("ip", "address", "add", FAR, "dev", "lo")
    behind(net, FAR, router)
    router.run("ip", "route", "add", FAR, *"via 169.254.1.1 dev eth0 onlink mtu lock".split(), str(NARROW))
    net.node.run("ip", "route", "add", FAR, *f"via {far.address4} dev pod0 onlink table 77".split())
    net.node.run("ip", "rule", "add", "iif", "pod3", "to", FAR, "lookup", "77", "priority", "7")
    digests: list[str] = []

    def take(server: socket.socket) -> None:
        s, peer = server.accept()
        with s:
            whole = hashlib.md5()
            while part := s.recv(65536):
                whole.update(part)
            digests.extend((whole.hexdigest(), peer[0]))
            s.sendall(b"done")

    data = bytes(range(256)) * 1024
    with (
        far.listen(9000, FAR) as server,
        running(tmp_path, "userspace", service("far", VIP) + slice_of("far", FAR, target=9000)),
    ):
        thread = threading.Thread(target=take, args=(server,))
        thread.start()
        with world.client.connect(VIP, 80) as s:
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            assert s.recv(10) == b"done"
        thread.join()
    assert digests == [hashlib.md5(data).hexdigest(), world.client.address4]


def on_bridge(node: Place, number: int) -> Place:
    """A pod as the CNI plugin `bridge` makes it."""
    pod = Place(new_namespace(), f"10.1.0.{number}", f"fd01::{number}")
    node.run(
        *("ip", "-batch", "-"),
        input=f"""link add port{number} type veth peer name eth0 netns {pod.path}
link set port{number} master cni0 up
""",
    )
    pod.run(
        *("ip", "-batch", "-"),
        input=f"""link set lo up
link set eth0 up
address add {pod.address4}/24 dev eth0
address add {pod.address6}/64 dev eth0 nodad
route add default via 10.1.0.254
route add default via fd01::fe
""",
    )
    return pod


def test_pods_on_a_bridge(net: Topology, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What one answers to another's address would go there and not to the data plane, and the client was reset: so they
    see the node, which is said; also where the bridge has a network only later. Each other they see as before."""
    node = net.node
    node.run(*"ip link add cni0 up type bridge".split())
    node.run(*"ip address add 10.1.0.254/24 dev cni0".split())
    pods = [on_bridge(node, number) for number in (1, 2, 9)]
    servers, client = [Server(pod, 8080) for pod in pods[:2]], pods[2]
    both, targets = (f"{{name: tcp, port: {n}}}, {{name: udp, port: {n}, protocol: UDP}}" for n in (80, 8080))
    text = service("web", VIP, ports=both) + slice_of("web", pods[0].address4, pods[1].address4, ports=targets)
    text += service("six", VIP6) + slice_of("six", f'"{pods[0].address6}"').replace("IPv4", "IPv6")
    try:
        with running(tmp_path, "userspace", text) as proxy:
            for udp in (False, True):
                found = {ask(client, VIP, 80, udp=udp) for _ in range(2)}
                assert found == {Answer(text_of(pod.address4, 8080), "10.1.0.254") for pod in pods[:2]}
            assert ask(client, pods[0].address4, 8080) == Answer(text_of(pods[0].address4, 8080), client.address4)
            node.run(*"ip address add fd01::fe/64 dev cni0 nodad".split())
            right = Answer(text_of(pods[0].address6, 8080), "fd01::fe")
            until(lambda: ask(client, VIP6, 80, silent=True) == right, "the bridge's second network is never seen")
            said = "clients in 10.1.0.0/24, fd01::/64 are on a bridge of this node, so endpoints see the node's address"
            assert said in proxy.said() and proxy.status(capfd)["beside"] == said
    finally:
        for server in servers:
            server.close()
        for pod in pods:
            os.close(pod.fd)


def test_a_bridge_with_the_nodes_neighbours_is_none_of_pods(net: Topology) -> None:
    for command in (
        "link add lan up type bridge",
        "address add 192.0.2.1/24 dev lan",
        "address add 10.9.0.1/24 dev lan",
    ):
        net.node.run("ip", *command.split())
    assert bridged([packed(NODE4)]) == ((packed("10.9.0.0"), 24), (packed("192.0.2.0"), 24))
    assert bridged([packed("192.0.2.1")]) == ()
