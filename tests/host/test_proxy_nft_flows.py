"""The tables of flows with real packets in both modes: what is right for the plan is what becomes of a packet.

What carries them out goes from scenario to scenario by the difference, so that this is a test of changes too.
The kernel of the machine has no sockets of SCTP: its flows are told to the plan alone.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyrun.kube.addresses import address_text, parse_address, port_text
from pyrun.proxy.carriers import InKernel, UserSpace
from pyrun.proxy.frontends import LOOPBACKS
from pyrun.proxy.messages import Settings
from pyrun.proxy.nft.state import State
from pyrun.proxy.plan import plan_proxy
from pyrun.proxy.routes import addresses_to_catch
from pyrun.proxy.rules import SCTP, TCP, Key, Rules, difference
from tests.support.flows import WHO, Scenario, packet, right_of, scenarios
from tests.support.proxy.topology import NODE4, NODE6, Place, Topology, topology

SILENCE_S = 0.15  # that nothing comes is not told by waiting longer
NODE = [WHO["node"], WHO["other"], WHO["node6"], WHO["other6"]]
CLIENTS = [WHO[who] for who in ("outside", "blocked", "outside6", "blocked6")]


class World:
    """The node, a host with the clients outside, and one for each other address: a pod of its own."""

    def __init__(self, net: Topology, mode: str, directory: Path) -> None:
        self.net = net
        self.mode = mode
        own = [parse_address(a) for a in NODE]
        self.carrier: InKernel | UserSpace = InKernel(own)
        if mode == "userspace":
            self.carrier = UserSpace(str(directory / "plane"), own, print, Settings())
        self.rules = Rules()
        net.also(net.node, NODE)
        clients = net.host(WHO["pod"], WHO["pod6"])
        net.also(clients, CLIENTS)
        self._owners: dict[str, Place] = {WHO["pod"]: clients, WHO["pod6"]: clients}
        self._owners |= dict.fromkeys(CLIENTS, clients) | dict.fromkeys(NODE, net.node)
        self._servers: dict[tuple[int, str, int], socket.socket] = {}

    def owner(self, address: str) -> Place:
        if address not in self._owners:
            number = len(self._owners)
            six = ":" in address
            pair = (f"10.250.0.{number}", address) if six else (address, f"fd00:250::{number}")
            self._owners[address] = self.net.host(*pair)
        return self._owners[address]

    def apply(self, rules: Rules) -> None:
        change = difference(self.rules, rules) if self.rules.ranges == rules.ranges else None
        self.carrier.apply(rules, change)
        self.rules = rules
        for server in self._servers.values():
            server.close()
        self._servers.clear()
        by_key = {one.key: one for one in rules.sets}
        for frontend in rules.frontends:
            for choice in frontend.choices:
                for one in by_key[choice.endpoints].endpoints if choice.endpoints else ():
                    self._serve(frontend.protocol, address_text(one.address), one.port)

    def _serve(self, protocol: int, address: str, port: int) -> None:
        if protocol == SCTP or (protocol, address, port) in self._servers:
            return
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        kind = socket.SOCK_STREAM if protocol == TCP else socket.SOCK_DGRAM
        made = self.owner(address).open(family, kind)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
        if protocol == TCP:
            made.listen(64)
        self._servers[protocol, address, port] = made

    def send(self, source: str, key: Key, patience_s: float) -> tuple[str, str]:
        """One connection or datagram: ("reject" or "drop", "") or (endpoint, the source that it has seen)."""
        protocol, address, port = key
        family = socket.AF_INET6 if len(address) == 16 else socket.AF_INET
        kind = socket.SOCK_STREAM if protocol == TCP else socket.SOCK_DGRAM
        with self.owner(source).open(family, kind) as client:
            client.settimeout(patience_s)
            client.bind((source, 0))
            try:
                client.connect((address_text(address), port))
                if protocol != TCP:
                    client.send(b"x")
            except ConnectionRefusedError:
                return "reject", ""
            except TimeoutError:
                return "drop", ""
            except OSError as e:
                if e.errno in (errno.EPERM, errno.ENETUNREACH):  # dropped on its way out, no way there
                    return "drop", ""
                raise
            return self._arrival(client, patience_s)

    def _arrival(self, client: socket.socket, patience_s: float) -> tuple[str, str]:
        ready, _, _ = select.select([*self._servers.values(), client], [], [], patience_s)
        for (protocol, address, port), server in self._servers.items():
            if server in ready:
                if protocol == TCP:
                    accepted, peer = server.accept()
                    accepted.close()
                else:
                    _, peer = server.recvfrom(10)
                return port_text(parse_address(address), port), peer[0]
        if client in ready:
            with pytest.raises(ConnectionRefusedError):
                client.recv(10)
            return "reject", ""
        return "drop", ""

    def close(self) -> None:
        for server in self._servers.values():
            server.close()
        self.carrier.close(remove=True)


@pytest.fixture(scope="module", params=["userspace", "nftables"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("flows")
    directory.chmod(0o700)
    with topology() as net, contextlib.closing(World(net, request.param, directory)) as made:
        yield made


def rules_of(scenario: Scenario) -> Rules:
    files, node, options = scenario.read()
    return plan_proxy(files.objects.services.values(), files.objects.slices.values(), node, options)


def outcome(world: World, flow: tuple[str, str], right: str) -> str:
    """What becomes of the flow, in the words of the tables."""
    source, key = WHO.get(flow[0], flow[0]), packet(flow)[1]
    action, *endpoints = right.split()
    if action == "pass":
        found, _ = world.send(source, key, SILENCE_S)
        return "pass" if found in ("reject", "drop", port_text(*key[1:])) else found
    if action in ("drop", "reject"):
        return world.send(source, key, SILENCE_S if action == "drop" else 20)[0]
    seen = [world.send(source, key, 20) for _ in endpoints]
    if not all(s for _, s in seen):
        return " ".join(e for e, _ in seen)
    frontend = next(one for one in world.rules.frontends if one.key == key)
    reached = endpoints if frontend.affinity and {e for e, _ in seen} <= set(endpoints) else {e for e, _ in seen}
    masked = [s for _, s in seen if s != source]
    assert all(s in (*NODE, NODE4, NODE6) for s in masked), masked
    if source in NODE or frontend.affinity:
        return " ".join([action, *reached])
    return " ".join(["masq" if masked else "keep", *reached])


def can_be_sent(world: World, flow: tuple[str, str]) -> bool:
    """By a socket of this kernel: no SCTP, one family, and not from the address of a service, as a load balancer. What
    is asked for on loopback is not the kernel's: the daemon refuses it."""
    source, (protocol, address, _) = packet(flow)
    if address in LOOPBACKS and any(one.address == address for one in world.rules.frontends):
        return False
    caught = {caught for caught, _ in addresses_to_catch(world.rules, [parse_address(a) for a in NODE])}
    return protocol != SCTP and len(source) == len(address) and source not in caught


def right_in(mode: str, right: str) -> str:
    """In user space, what has an address of the node sees the node: its answers would not come to the data plane."""
    if mode == "userspace" and any(one.rpartition(":")[0].strip("[]") in NODE for one in right.split()[1:]):
        right = right.replace("keep", "masq", 1)
    return right_of(right)


@pytest.mark.parametrize("scenario", scenarios(), ids=lambda one: one.name)
def test_flows(world: World, scenario: Scenario) -> None:
    world.apply(rules_of(scenario))
    wrong = [
        f"{' -> '.join(flow)}: {found}, and not {right}"
        for flow, right in scenario.flows.items()
        if can_be_sent(world, flow) and right_of(found := outcome(world, flow, right)) != right_in(world.mode, right)
    ]
    assert not wrong


@pytest.mark.parametrize("world", ["nftables"], indirect=True)
@pytest.mark.parametrize("scenario", scenarios()[::3], ids=lambda one: one.name)
def test_the_kernel_has_what_is_planned(world: World, scenario: Scenario) -> None:
    """After changes from many other rules: what it has is what it would have from the start."""
    rules = rules_of(scenario)
    world.apply(rules)
    planned = State(everything=True).plan(difference(Rules(), rules))
    held = {place: elements for place, elements in world.carrier._kernel.elements().items() if elements}
    assert held == {place: dict(pairs) for place, pairs in planned.put.items()}
