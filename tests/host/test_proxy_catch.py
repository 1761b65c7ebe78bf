"""sk_lookup, the routes to service addresses and the mark of transparent sockets, between three network namespaces."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from pyrun.errors import FailedPrecondition, PyrunError
from pyrun.proxy import bpf
from pyrun.proxy.routes import MARK_TABLE, Routes, addresses_to_catch
from pyrun.proxy.rules import TCP, Frontend, Rules
from pyrun.proxy.sklookup import SkLookup
from tests.support.proxy.topology import NODE4, NODE6, REPO, Place, Topology, family_of, packed, topology

RANGE4, RANGE6 = ("10.96.0.0", 16), ("fd96::", 112)
VIPS = ["10.96.0.7", "fd96::7"]
IP_TRANSPARENT, IPV6_TRANSPARENT = 19, 75


def prefix(text: tuple[str, int]) -> tuple[bytes, int]:
    return packed(text[0]), text[1]


class Node:
    """The node with a client and a server beside it, its routes, and one listening socket."""

    def __init__(self, net: Topology) -> None:
        self.net = net
        self.client = net.host("10.1.0.2", "fd01::2")
        self.server = net.host("10.1.0.3", "fd01::3")
        self.lookup = SkLookup()
        self.listener = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        self.listener.settimeout(60)
        self.lookup.set_listener(0, self.listener.fileno())
        self.routes = Routes([packed(NODE4), packed(NODE6)])
        self.routes.apply([prefix(RANGE4), prefix(RANGE6)])

    def close(self) -> None:
        self.lookup.close()
        self.routes.close()
        self.listener.close()


@pytest.fixture
def node() -> Iterator[Node]:
    with topology() as net:
        made = Node(net)
        try:
            yield made
        finally:
            made.close()


def key(address: str, port: int) -> tuple[int, bytes, int]:
    return TCP, packed(address), port


def plain(address: str) -> str:
    return address.removeprefix("::ffff:")


def arrives(node: Node, place: Place, vip: str, port: int) -> tuple[str, int, str]:
    """What the listener sees of a connection: the address and port asked for, and the client's address."""
    with place.connect(vip, port), node.listener.accept()[0] as accepted:
        return plain(accepted.getsockname()[0]), accepted.getsockname()[1], plain(accepted.getpeername()[0])


@pytest.mark.parametrize("vip", VIPS)
def test_one_listener_takes_every_service(node: Node, vip: str) -> None:
    node.lookup.apply([key(vip, 80), key(vip, 65535)])
    for port in (80, 65535):
        assert arrives(node, node.client, vip, port) == (vip, port, node.client.address(family_of(vip)))


@pytest.mark.parametrize("vip", VIPS)
def test_the_node_itself_comes_from_its_own_address(node: Node, vip: str) -> None:
    node.lookup.apply([key(vip, 80)])
    assert arrives(node, node.net.node, vip, 80) == (vip, 80, NODE6 if ":" in vip else NODE4)


@pytest.mark.parametrize("vip", VIPS)
def test_what_is_no_service_is_refused(node: Node, vip: str) -> None:
    node.lookup.apply([key(vip, 80)])
    for address, port in ((vip, 81), (vip[:-1] + "8", 80)):
        for place in (node.client, node.net.node):
            with pytest.raises(ConnectionRefusedError):
                place.connect(address, port)
    node.lookup.apply([])
    with pytest.raises(ConnectionRefusedError):
        node.client.connect(vip, 80)


def test_a_key_is_of_one_family_and_protocol(node: Node) -> None:
    node.lookup.apply([(17, packed(VIPS[0]), 80), key(VIPS[1], 80)])
    with pytest.raises(ConnectionRefusedError):
        node.client.connect(VIPS[0], 80)


def test_an_address_and_port_of_the_node(node: Node) -> None:
    node.lookup.apply([key(NODE4, 30080), key(NODE6, 30080), key("127.0.0.1", 30080)])
    assert arrives(node, node.client, NODE4, 30080)[:2] == (NODE4, 30080)
    assert arrives(node, node.client, NODE6, 30080)[:2] == (NODE6, 30080)
    assert arrives(node, node.net.node, "127.0.0.1", 30080) == ("127.0.0.1", 30080, "127.0.0.1")


def test_another_listener_takes_over_without_a_gap(node: Node) -> None:
    """An upgrade: who has connected before is in the old queue, who comes later in the new one."""
    node.lookup.apply([key(VIPS[0], 80)])
    with contextlib.ExitStack() as stack:
        early = stack.enter_context(node.client.connect(VIPS[0], 80))
        new = stack.enter_context(socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True))
        new.settimeout(60)
        node.lookup.set_listener(0, new.fileno())
        late = stack.enter_context(node.client.connect(VIPS[0], 80))
        for client, listener in ((early, node.listener), (late, new)):
            accepted = stack.enter_context(listener.accept()[0])
            assert accepted.getpeername()[1] == client.getsockname()[1]


def test_workers_share_by_client_and_an_absent_one_is_the_first(node: Node) -> None:
    node.lookup.apply([key(VIPS[0], 80)])
    with contextlib.ExitStack() as stack:
        second = stack.enter_context(socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True))
        node.lookup.set_listener(1, second.fileno())
        node.lookup.set_workers(2)
        clients = [stack.enter_context(node.client.connect(VIPS[0], 80)) for _ in range(64)]
        second.settimeout(0.5)
        taken = 0
        with contextlib.suppress(TimeoutError):
            while True:
                second.accept()[0].close()
                taken += 1
        assert 8 < taken < 56 and len(clients) == 64
        node.lookup.unset_listener(1)
        for _ in range(64 - taken):
            node.listener.accept()[0].close()
        for _ in range(16):
            arrives(node, node.client, VIPS[0], 80)


@pytest.mark.parametrize("vip", VIPS)
def test_a_reply_finds_the_socket_that_speaks_as_the_client(node: Node, vip: str) -> None:
    """The server sees the client's address, and what it answers reaches the node's socket, not the client."""
    family = family_of(vip)
    with node.server.listen(8080) as server, node.net.node.open(family, socket.SOCK_STREAM) as out:
        if family == socket.AF_INET:
            out.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
        else:
            out.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
        out.bind((node.client.address(family), 0))
        out.connect((node.server.address(family), 8080))
        with server.accept()[0] as accepted:
            assert plain(accepted.getpeername()[0]) == node.client.address(family)
            accepted.sendall(b"hello")
            assert out.recv(10) == b"hello"


@pytest.mark.parametrize("vip", VIPS)
def test_pods_reach_each_other_as_before(node: Node, vip: str) -> None:
    family = family_of(vip)
    with node.server.listen(8080) as server, node.client.connect(node.server.address(family), 8080):
        with server.accept()[0] as accepted:
            assert plain(accepted.getpeername()[0]) == node.client.address(family)


def test_ten_thousand_keys_and_back(node: Node) -> None:
    wanted = {(TCP, bytes((10, 96, i >> 8, i & 255)), 80) for i in range(10000)}
    assert node.lookup.apply(wanted) == 10000
    assert node.lookup.keys() == wanted
    assert node.lookup.apply(wanted) == 0
    assert node.lookup.apply([key(VIPS[0], 80)]) == 9999
    assert node.lookup.keys() == {key(VIPS[0], 80)}


# --- what stays and what goes -----------------------------------------------------------------------------------------

DAEMON = """
import os, sys, socket
from pyrun.proxy.routes import Routes
from pyrun.proxy.sklookup import SkLookup
listener, keeper = int(sys.argv[1]), int(sys.argv[2])
lookup = SkLookup()
lookup.set_listener(0, listener)
lookup.apply([(6, socket.inet_pton(2, "10.96.0.7"), 80), (6, socket.inet_pton(2, "10.96.0.7"), 81)])
with socket.socket(fileno=keeper) as s:
    socket.send_fds(s, [b"x"], list(lookup.descriptors().values()))
sys.stdin.read()
"""


def test_a_killed_daemon_changes_nothing_and_the_next_finds_all(node: Node) -> None:
    """Who holds the descriptors (the data plane; here the test) keeps everything."""
    node.lookup.close()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        inherited = node.listener.fileno(), theirs.fileno()
        command = [sys.executable, "-c", DAEMON, *map(str, inherited)]
        daemon = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=inherited, cwd=REPO)
        ours.settimeout(60)
        _, kept, _, _ = socket.recv_fds(ours, 1, 10)
        try:
            daemon.send_signal(signal.SIGKILL)
            daemon.communicate()
            assert arrives(node, node.client, VIPS[0], 80)[:2] == (VIPS[0], 80)
            node.lookup = SkLookup()
            assert node.lookup.found == 2
            assert node.lookup.apply([key(VIPS[0], 80), key(VIPS[1], 80)]) == 2
            assert arrives(node, node.client, VIPS[0], 80)[:2] == (VIPS[0], 80)
            assert arrives(node, node.client, VIPS[1], 80)[:2] == (VIPS[1], 80)
            node.lookup.close()
            with pytest.raises(ConnectionRefusedError):  # detached, whoever holds what
                node.client.connect(VIPS[0], 80)
        finally:
            for fd in kept:
                os.close(fd)


def test_another_version_s_program_is_replaced_on_its_link(node: Node) -> None:
    node.lookup.apply([key(VIPS[0], 80)])
    kept = [os.dup(fd) for fd in node.lookup.descriptors().values()]
    node.lookup.close(detach=False)
    try:
        node.lookup = SkLookup(entries=1 << 18)  # more than there is room for
        assert node.lookup.found == 0
        node.lookup.set_listener(0, node.listener.fileno())
        node.lookup.apply([key(VIPS[0], 81)])
        assert arrives(node, node.client, VIPS[0], 81)[:2] == (VIPS[0], 81)
        with pytest.raises(ConnectionRefusedError):
            node.client.connect(VIPS[0], 80)
    finally:
        for fd in kept:
            os.close(fd)


def test_another_s_program_is_named(node: Node) -> None:
    node.lookup.close()
    pass_on = bytes.fromhex("b7000000010000009500000000000000")  # r0 = SK_PASS; exit
    program = bpf.load_sk_lookup(pass_on, "cilium_lookup")
    ns = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    link = bpf.attach(program, ns)
    try:
        with pytest.raises(FailedPrecondition, match=r"cilium_lookup.*(?s:.*)hint: Cilium"):
            SkLookup()
        node.lookup = SkLookup(beside=True)
        node.lookup.set_listener(0, node.listener.fileno())
        node.lookup.apply([key(VIPS[0], 80)])
        assert arrives(node, node.client, VIPS[0], 80)[:2] == (VIPS[0], 80)
    finally:
        for fd in (program, ns, link):
            os.close(fd)


def test_a_socket_that_does_not_listen_is_refused(node: Node) -> None:
    with socket.socket() as idle, pytest.raises(PyrunError, match="the listener of the data plane: "):
        node.lookup.set_listener(1, idle.fileno())


def routes_of(place: Place) -> str:
    return "".join(place.run("ip", version, "route", "show", "table", "all") for version in ("-4", "-6"))


def test_routes_are_made_once_and_all_go() -> None:
    with topology() as net:
        net.host("10.1.0.2", "fd01::2")
        before = routes_of(net.node), net.node.run("ip", "rule"), net.node.run("ip", "-6", "rule")
        wanted = {prefix(RANGE4), prefix(RANGE6), (packed("192.0.2.9"), 32)}
        first = Routes([packed(NODE4), packed(NODE6)])
        assert first.apply(wanted) == 3
        first.close(remove=False)  # as SIGKILL does
        second = Routes([packed(NODE4), packed(NODE6)])
        assert second.apply(wanted) == 0
        assert second.apply(wanted - {(packed("192.0.2.9"), 32)}) == 1
        assert "192.0.2.9" not in routes_of(net.node)
        assert MARK_TABLE in net.node.run("nft", "list", "tables")
        second.close()
        assert (routes_of(net.node), net.node.run("ip", "rule"), net.node.run("ip", "-6", "rule")) == before
        assert net.node.run("nft", "list", "tables") == ""


def test_what_others_made_stays() -> None:
    """An address of a link that a load balancer's is too is local as it is; it is not ours to take away."""
    with topology() as net:
        net.node.run("ip", "address", "add", "192.0.2.9/32", "dev", "lo")
        net.node.run("ip", "route", "add", "local", "192.0.2.10/32", "dev", "lo")
        before = routes_of(net.node)
        routes = Routes([packed(NODE4), packed(NODE6)], transparent=False)
        routes.apply([(packed("192.0.2.9"), 32), (packed("192.0.2.10"), 32)])
        routes.apply([])
        routes.close()
        assert routes_of(net.node) == before


@pytest.mark.parametrize("wide", [("10.0.0.0", 8), ("10.1.0.0", 16), ("fd00::", 8)])
def test_a_range_that_cuts_a_network_off_is_refused(node: Node, wide: tuple[str, int]) -> None:
    before = routes_of(node.net.node)
    with pytest.raises(FailedPrecondition, match="by a link"):
        node.routes.apply([prefix(RANGE4), prefix(RANGE6), prefix(wide)])
    assert routes_of(node.net.node) == before


def test_which_addresses_have_to_be_local() -> None:
    def frontend(address: str) -> Frontend:
        return Frontend("x", TCP, packed(address), 80, ())

    rules = Rules(
        frontends=tuple(frontend(a) for a in (*VIPS, NODE4, "127.0.0.1", "::1", "192.0.2.9", "2001:db8::9")),
        ranges=(prefix(RANGE4), prefix(RANGE6)),
    )
    singles = {(packed("192.0.2.9"), 32), (packed("2001:db8::9"), 128)}
    assert addresses_to_catch(rules, [packed(NODE4)]) == {prefix(RANGE4), prefix(RANGE6)} | singles
