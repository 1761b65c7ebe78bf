"""Kernel mode: turns, clients that keep their endpoint, flows of UDP, and what is left by who is killed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import random
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from pyrun.errors import Unavailable
from pyrun.proxy.carriers import InKernel
from pyrun.proxy.nft import messages
from pyrun.proxy.nft.kernel import KernelRules
from pyrun.proxy.nft.layout import SERVICES, TABLE
from pyrun.proxy.nft.state import State
from pyrun.proxy.routes import Routes, addresses_to_catch
from pyrun.proxy.rules import (
    DROP,
    FORWARD,
    REJECT,
    TCP,
    UDP,
    Change,
    Choice,
    Endpoint,
    EndpointSet,
    Frontend,
    Rules,
    difference,
)
from tests.support.daemon import until
from tests.support.proxy.topology import NODE4, NODE6, REPO, Place, family_of, packed, topology

VIP4, VIP6 = "10.96.0.7", "fd96::7"
RANGES = ((packed("10.96.0.0"), 16), (packed("fd96::"), 112))
BOTH = pytest.mark.parametrize("vip", [VIP4, VIP6])


class Node:
    """The node, a client and four servers of both protocols at port 8080."""

    def __init__(self, stack: contextlib.ExitStack, *, everything: bool = True) -> None:
        self.net = stack.enter_context(topology())
        self.client = self.net.host("10.1.0.2", "fd01::2")
        self.servers = [self.net.host(f"10.1.0.{n}", f"fd01::{n}") for n in (3, 4, 5, 6)]
        self.listeners = [stack.enter_context(place.listen(8080)) for place in self.servers]
        self.udp = [stack.enter_context(self._datagrams(place, 8080)) for place in self.servers]
        self.routes = stack.enter_context(contextlib.closing(Routes([packed(NODE4), packed(NODE6)], transparent=False)))
        self.kernel = KernelRules(everything=everything)
        stack.callback(lambda: self.kernel.close())

    def _datagrams(self, place: Place, port: int) -> socket.socket:
        made = place.open(socket.AF_INET6, socket.SOCK_DGRAM)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind(("::", port))
        return made

    def apply(self, rules: Rules) -> None:
        self.routes.apply(addresses_to_catch(rules, [packed(NODE4), packed(NODE6)]))
        self.kernel.apply(rules)

    def endpoints(self, vip: str, *which: int) -> EndpointSet:
        family = family_of(vip)
        return EndpointSet("set", tuple(Endpoint(packed(self.servers[i].address(family)), 8080) for i in which))

    def reached(self, vip: str, port: int = 80, place: Place | None = None) -> int:
        """Which server a connection comes to."""
        with (place or self.client).connect(vip, port):
            ready, _, _ = select.select(self.listeners, [], [], 20)
            with ready[0].accept()[0]:
                return self.listeners.index(ready[0])

    def datagram(self) -> int | None:
        """Which server gets the next datagram; None where none comes within a moment."""
        ready, _, _ = select.select(self.udp, [], [], 0.2)
        if not ready:
            return None
        ready[0].recv(10)
        return self.udp.index(ready[0])


@pytest.fixture
def node() -> Iterator[Node]:
    with contextlib.ExitStack() as stack:
        yield Node(stack)


def forward(vip: str, *, protocol: int = TCP, port: int = 80, affinity: int = 0, kernel: bool = False) -> Frontend:
    return Frontend("test", protocol, packed(vip), port, (Choice((), FORWARD, "set"),), affinity, kernel)


def rules_of(node: Node, vip: str, *which: int, protocol: int = TCP, affinity: int = 0) -> Rules:
    if not which:
        return Rules((Frontend("test", protocol, packed(vip), 80, (Choice((), REJECT),), affinity),), (), RANGES)
    return Rules((forward(vip, protocol=protocol, affinity=affinity),), (node.endpoints(vip, *which),), RANGES)


@BOTH
def test_endpoints_take_turns(node: Node, vip: str) -> None:
    """Scenario 2: exact, in order, and again after one more."""
    node.apply(rules_of(node, vip, 0, 1, 2))
    assert [node.reached(vip) for _ in range(90)] == [0, 1, 2] * 30
    node.apply(rules_of(node, vip, 0, 1, 2, 3))
    assert Counter(node.reached(vip) for _ in range(120)) == dict.fromkeys(range(4), 30)


@BOTH
def test_a_connection_lives_on_when_its_endpoint_is_no_more_chosen(node: Node, vip: str) -> None:
    node.apply(rules_of(node, vip, 0))
    with node.client.connect(vip, 80) as client, node.listeners[0].accept()[0] as accepted:
        node.apply(rules_of(node, vip, 1))
        client.sendall(b"still here")
        assert accepted.recv(20) == b"still here"
        assert node.reached(vip) == 1


@BOTH
def test_a_client_keeps_its_endpoint_for_a_time(node: Node, vip: str) -> None:
    """Scenario 10. The time begins anew with each connection, and what is kept outlives the daemon."""
    node.apply(rules_of(node, vip, 0, 1, 2, affinity=600))
    mine = [node.reached(vip, place=place) for place in (node.client, node.servers[3]) for _ in range(6)]
    assert mine == [0] * 6 + [1] * 6
    node.kernel.close(remove=False)
    node.kernel = KernelRules()
    node.apply(rules_of(node, vip, 0, 1, 2, affinity=600))
    assert [node.reached(vip) for _ in range(6)] == [0] * 6
    node.apply(rules_of(node, vip, 1, 2, affinity=600))  # gone: to another at once
    moved = [node.reached(vip) for _ in range(6)]
    assert moved in ([1] * 6, [2] * 6)
    assert [node.reached(vip, place=node.servers[3]) for _ in range(3)] == [1] * 3
    node.apply(rules_of(node, vip, 0, 1, 2, affinity=600))  # one that comes back has lost its clients
    assert [node.reached(vip) for _ in range(6)] == moved


def test_a_client_is_free_after_the_time(node: Node) -> None:
    node.apply(rules_of(node, VIP4, 0, 1, 2, affinity=1))
    first = node.reached(VIP4)
    deadline = time.monotonic() + 60
    while "expires" in (said := node.net.node.run("nft", "list", "map", "ip", TABLE, "kept")):
        assert time.monotonic() < deadline, said
        time.sleep(0.1)
    assert node.reached(VIP4) == (first + 1) % 3


def test_a_clients_time_begins_anew_with_each_connection(node: Node) -> None:
    node.apply(rules_of(node, VIP4, 0, 1, 2, affinity=600))
    first = node.reached(VIP4)

    def left() -> int:
        """Milliseconds that the one client's endpoint is kept."""
        said = node.net.node.run("nft", "list", "map", "ip", TABLE, "kept")
        (words,) = re.findall(r"expires (\S+)", said)
        units = {"m": 60_000, "s": 1000, "ms": 1}
        return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)(ms|m|s)", words))

    until(lambda: left() < 599_000, "no time goes by")
    before = left()
    until(lambda: node.reached(VIP4) == first and left() > before, "the client's time runs out while it calls")


@BOTH
def test_a_sender_of_datagrams_that_never_pauses_is_moved(node: Node, vip: str) -> None:
    """kubernetes#139628: one socket that sends on, while its only endpoint goes, none is left, and another comes."""
    with node.client.open(family_of(vip), socket.SOCK_DGRAM) as client:
        client.connect((vip, 80))

        def goes_to(wanted: int | None) -> bool:
            with contextlib.suppress(ConnectionRefusedError):
                client.send(b"x")
            return node.datagram() == wanted

        node.apply(rules_of(node, vip, 0, protocol=UDP))
        assert goes_to(0) and goes_to(0)
        node.apply(rules_of(node, vip, 1, protocol=UDP))
        assert goes_to(1)
        node.apply(rules_of(node, vip, protocol=UDP))
        assert goes_to(None)
        node.apply(rules_of(node, vip, 2, protocol=UDP))
        assert any(goes_to(2) for _ in range(2))  # the first send() may tell of a refusal before
        node.apply(rules_of(node, vip, 2, 3, protocol=UDP))
        assert goes_to(2)


@BOTH
def test_flows_of_datagrams_outlive_a_daemon(node: Node, vip: str) -> None:
    """kubernetes#122740: a restart moves nobody whose endpoint is there."""
    rules = rules_of(node, vip, 0, 1, 2, protocol=UDP)
    node.apply(rules)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(node.client.open(family_of(vip), socket.SOCK_DGRAM)) for _ in range(6)]
        before = []
        for client in clients:
            client.connect((vip, 80))
            client.send(b"x")
            before.append(node.datagram())
        assert sorted(before) == [0, 0, 1, 1, 2, 2]  # type: ignore[type-var]
        node.kernel.close(remove=False)
        node.kernel = KernelRules()
        node.apply(rules)
        for client, server in zip(clients, before, strict=True):
            client.send(b"x")
            assert node.datagram() == server


# --- beside the data plane --------------------------------------------------------------------------------------------


def test_of_services_of_the_data_plane_only_what_nobody_gets_is_in_the_kernel() -> None:
    with contextlib.ExitStack() as stack:
        node = Node(stack, everything=False)
        own = stack.enter_context(socket.create_server((VIP4, 80))) if node.routes.apply(RANGES) else None
        assert own is not None
        wall = Frontend("wall", TCP, packed(VIP4), 81, (Choice((), DROP),))
        kept_out = Choice(((packed("10.1.0.2"), 32),), DROP), Choice((), FORWARD, "set")
        by_source = Frontend("by source", TCP, packed(VIP4), 80, kept_out)
        rules = Rules((wall, by_source), (node.endpoints(VIP4, 0),), RANGES, allocated=(packed(VIP4),))
        node.apply(rules)
        for port in (80, 81):
            with pytest.raises(TimeoutError):
                node.client.connect(VIP4, port, timeout=0.3)
        with pytest.raises(TimeoutError):
            node.client.connect("10.96.0.8", 80, timeout=0.3)
        with pytest.raises(ConnectionRefusedError):
            node.client.connect(VIP4, 82)
        with node.servers[0].connect(VIP4, 80) as client, own.accept()[0] as accepted:
            assert accepted.getpeername()[0] == client.getsockname()[0] == "10.1.0.3"
        assert "type nat" not in node.net.node.run("nft", "list", "table", "ip", TABLE)
        in_kernel = forward(VIP4, port=83, kernel=True)
        node.apply(dataclasses.replace(rules, frontends=(*rules.frontends, in_kernel)))
        assert node.reached(VIP4, 83) == 0
        with pytest.raises(TimeoutError):
            node.client.connect(VIP4, 81, timeout=0.3)
        node.apply(rules)
        with pytest.raises(ConnectionRefusedError):
            node.client.connect(VIP4, 83)


@pytest.mark.parametrize("everything", [True, False])
def test_a_program_of_the_node_has_its_own_address_where_no_endpoint_is(everything: bool) -> None:
    """As the cluster's DNS has that of a Service without endpoints; on any other it is not to be had."""
    with contextlib.ExitStack() as stack:
        node = Node(stack, everything=everything)
        empty = Frontend("dns", TCP, packed(VIP4), 53, (Choice((), REJECT),))
        rules = Rules((empty,), (), RANGES, allocated=(packed(VIP4),))
        node.apply(rules)
        stack.enter_context(node.net.node.listen(53, "0.0.0.0"))
        with pytest.raises(ConnectionRefusedError):
            node.client.connect(VIP4, 53)
        node.apply(dataclasses.replace(rules, own=(packed(VIP4),)))
        node.client.connect(VIP4, 53).close()
        node.apply(rules)
        with pytest.raises(ConnectionRefusedError):
            node.client.connect(VIP4, 53)


# --- what others do, and what is left ---------------------------------------------------------------------------------


def test_who_flushes_the_rules_gets_them_back(node: Node) -> None:
    rules = rules_of(node, VIP4, 0, 1)
    node.apply(rules)
    node.net.node.run("nft", "flush", "ruleset")
    with pytest.raises(ConnectionRefusedError):
        node.reached(VIP4)
    node.apply(rules)
    assert [node.reached(VIP4) for _ in range(2)] == [0, 1]


def test_what_another_took_away_is_noticed_when_it_matters(node: Node) -> None:
    """An element that should be there and is not fails the batch as a whole; then the kernel is read and mended."""
    node.apply(rules_of(node, VIP4, 0, 1))
    node.net.node.run("nft", "delete", "element", "ip", TABLE, "services", f"{{ {VIP4} . tcp . 80 }}")
    node.apply(rules_of(node, VIP4, 0, 1, 2))
    assert [node.reached(VIP4) for _ in range(3)] == [0, 1, 2]


def test_others_tables_stay(node: Node) -> None:
    node.net.node.run("nft", "add", "table", "ip", "mine")
    node.apply(rules_of(node, VIP4, 0))
    node.kernel.close()
    node.kernel = KernelRules()
    assert node.net.node.run("nft", "list", "tables") == "table ip mine\n"


def test_a_table_of_another_form_is_replaced(node: Node) -> None:
    node.net.node.run("nft", "-f", "-", input=f"table ip {TABLE} {{\nset services {{ type ipv4_addr\n}}\n}}\n")
    node.apply(rules_of(node, VIP4, 0))
    assert node.reached(VIP4) == 0


def test_nft_reads_what_is_made(node: Node) -> None:
    """Debian 12's nft ends by a signal where a rule has a form that it can't tell; all of ours it can."""
    sources = Choice(((packed("10.1.0.0"), 24),), FORWARD, "set", True), Choice((), DROP)
    frontends = (forward(VIP4), forward(VIP4, port=81, affinity=5), Frontend("x", TCP, packed(VIP4), 82, sources))
    node.apply(Rules(frontends, (node.endpoints(VIP4, 0, 1),), RANGES, (packed(VIP4),)))
    said = json.loads(node.net.node.run("nft", "-j", "list", "ruleset"))["nftables"]
    maps = {
        one["map"]["name"]: one["map"].get("elem", []) for one in said if "map" in one and one["map"]["family"] == "ip"
    }
    endpoints, choices = ([one for name in maps if name.startswith(of) for one in maps[name]] for of in ("of", "from_"))
    assert len(maps["services"]) == 3 and len(endpoints) == 6 and len(choices) == 2


def test_a_chain_that_comes_later_has_a_map_of_its_own(node: Node) -> None:
    """The kernel walks through a map for which a rule is new: so none is made for one that others have filled. What is
    left of a map with its last service is nothing."""

    def maps() -> dict[str, int]:
        said = json.loads(node.net.node.run("nft", "-j", "list", "table", "ip", TABLE))["nftables"]
        return {one["map"]["name"]: len(one["map"].get("elem", [])) for one in said if "map" in one}

    before = rules_of(node, VIP4, 0, 1, 2)
    node.apply(before)
    (three,) = [name for name in maps() if name.startswith("of")]
    node.apply(rules_of(node, VIP4, 0, 1))
    (two,) = [name for name in maps() if name.startswith("of")]
    assert three.startswith("of3_") and two.startswith("of2_") and maps()[two] == 2
    node.kernel.close(remove=False)
    node.kernel = KernelRules()
    assert node.kernel.apply(rules_of(node, VIP4, 0, 1)).put == 0  # what was left is what is wanted
    node.apply(before)
    assert [name for name in maps() if name.startswith("of")] == [three] and maps()[three] == 3


# --- many -------------------------------------------------------------------------------------------------------------

KILLED = """
import sys
from pyrun.proxy.nft.kernel import KernelRules
from tests.support.proxy.many import many
kernel = KernelRules()
size = int(sys.argv[1])
print("ready", flush=True)
while True:
    for shift in (1, 0):
        kernel.apply(many(size, 4, shift))
        print(shift, flush=True)
"""


def wanted(rules: Rules) -> dict[tuple[int, str], dict[bytes, bytes]]:
    planned = State(everything=True).plan(difference(Rules(), rules))
    return {place: dict(pairs) for place, pairs in planned.put.items()}


def held(kernel: KernelRules) -> dict[tuple[int, str], dict[bytes, bytes]]:
    return {place: elements for place, elements in kernel.elements().items() if elements}


def test_who_is_killed_leaves_the_old_rules_or_the_new(node: Node) -> None:
    """Scenario 15: whenever it is, the kernel has one of both, and the next daemon goes on from there."""
    from tests.support.proxy.many import many

    size = 400
    both = [wanted(many(size, 4, shift)) for shift in (0, 1)]
    chance = random.Random(9)
    for _ in range(6):
        command = [sys.executable, "-c", KILLED, str(size)]
        daemon = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPO)
        assert daemon.stdout is not None
        for _ in range(3):
            daemon.stdout.readline()
        time.sleep(chance.random() * 0.05)
        daemon.send_signal(signal.SIGKILL)
        daemon.communicate()
        assert held(node.kernel) in both
    node.kernel.apply(many(size, 4, 0))
    assert held(node.kernel) == both[0]


def test_ten_thousand_services_of_ten_endpoints(node: Node) -> None:
    """Scenario 15: what the kernel has is what is planned, after the load, one change and a restart."""
    from tests.support.proxy.many import many

    rules = many(10_000, 10, 0)
    done = node.kernel.apply(rules)
    assert done.put == sum(map(len, wanted(rules).values()))
    before, less = rules.sets[77], EndpointSet(rules.sets[77].key, rules.sets[77].endpoints[1:])
    sets = (*rules.sets[:77], less, *rules.sets[78:])
    changed = dataclasses.replace(rules, sets=sets)
    done = node.kernel.apply(changed, Change(sets_put=(less,)))
    assert done.put + done.gone < 4 * len(before.endpoints) and not done.read
    assert held(node.kernel) == wanted(changed)
    node.kernel.close(remove=False)
    node.kernel = KernelRules()
    done = node.kernel.apply(rules)
    assert done.read and 0 < done.put + done.gone < 4 * len(before.endpoints)
    assert held(node.kernel) == wanted(rules)


def test_a_packet_under_way_finds_what_its_verdict_leads_to(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look into a map is of the moment, whichever rules the walk began with: what a verdict leads to is there
    before it and after it. Of 5000 changes 17 datagrams of a flood were refused."""
    commit = node.kernel._kernel.commit
    lost: list[tuple[str, bytes]] = []

    def watched(batch: messages.Batch, generation: int) -> None:
        before = node.kernel.elements()
        commit(batch, generation)
        after = node.kernel.elements()
        for verdicts, there in ((before, after), (after, before)):
            lost.extend(one for one in led_to(verdicts) if one[1] not in there.get((4, one[0]), {}))

    near = ((packed("10.1.0.2"), 32),)
    whole = [rules_of(node, VIP4, *some) for some in ((0,), (1,), (0, 1), (2, 3, 1), (0,), ())]
    by_source = Choice(near, FORWARD, "set"), Choice((), REJECT)
    one = dataclasses.replace(whole[0].frontends[0], choices=by_source)
    split = [dataclasses.replace(rules, frontends=(one,)) for rules in whole[:3]]
    node.apply(whole[0])
    monkeypatch.setattr(node.kernel._kernel, "commit", watched)
    for rules in (*whole, whole[2], *split, whole[0]):
        node.kernel.apply(rules)
        assert held(node.kernel) == wanted(rules)
    assert not lost


def led_to(elements: dict[tuple[int, str], dict[bytes, bytes]]) -> Iterator[tuple[str, bytes]]:
    """(map, key) of all that verdicts on services lead to, of IPv4."""
    maps = {name: found for (width, name), found in elements.items() if width == 4}
    todo = [(verdict, key) for key, verdict in maps.get(SERVICES, {}).items()]
    for verdict, service in todo:
        for name in [name for name in maps if verdict == messages.verdict(messages.GOTO, name)]:
            for key, data in maps[name].items():
                if key.startswith(service):
                    yield name, key
                    todo.append((data, service))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("numgen", "numgen (CONFIG_NFT_NUMGEN, module nft_numgen)"),
        ("ct", "ct (CONFIG_NFT_CT, module nft_ct)"),
        ("masq", "masquerade (CONFIG_NFT_MASQ, module nft_masq)"),
        ("nat", "dnat (CONFIG_NFT_NAT, module nft_nat)"),
        ("dynset", "dynset (CONFIG_NF_TABLES, module nf_tables)"),
        ("reject", "reject (CONFIG_NFT_REJECT_IPV4, module nft_reject_ipv4)"),
    ],
)
def test_a_kernel_that_lacks_something_is_refused_by_name(
    name: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first Service; an expression of a name that this kernel does not know stands for it. Nothing is left
    behind. In user space only what is refused and dropped is the kernel's."""
    made = messages._expression
    node = [packed(NODE4), packed(NODE6)]
    with topology() as net, contextlib.closing(KernelRules()) as kernel:
        assert kernel.lacks(node) == ""
        monkeypatch.setattr(messages, "_expression", lambda one, *parts: made("absent" if one == name else one, *parts))
        lacks = kernel.lacks(node)
        assert said in lacks and (lacks.count("CONFIG_") == (2 if name == "reject" else 1))
        assert bool(kernel.lacks(node, walls=True)) == (name in ("numgen", "reject"))
        with pytest.raises(Unavailable, match="does not have") as raised:
            InKernel(node)
        assert "modprobe" in str(raised.value.hint)
        assert net.node.run("nft", "list", "ruleset") == ""
