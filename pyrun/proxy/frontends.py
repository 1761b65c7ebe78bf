"""One port of a Service, of one family: which addresses catch its traffic, and what becomes of it by where it is from.

PURE. What is masqueraded is what kube-proxy's nftables mode masquerades: traffic to a cluster IP from outside the range
of pods, and traffic to node ports, load balancers and external IPs but where the policy is Local.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from ..kube.addresses import Prefix, any_holds, intersection, parse_prefix, port_text
from .forbid import external_ip_refused, forbidden_frontend
from .model import Node, Options, Service, ServicePort
from .rules import DROP, FORWARD, PROTOCOLS, REJECT, SCTP, Choice, Endpoint, EndpointSet, Frontend, Refusal
from .select import NODE, ZONE, Candidate, Selection

# Classes of frontends, in the order in which they win where two Services want the same address and port.
CLUSTER, BALANCER, EXTERNAL, NODE_PORT = "cluster", "load-balancer", "external", "node-port"
CLASSES = (CLUSTER, BALANCER, EXTERNAL, NODE_PORT)
_LOOPBACK = {4: parse_prefix("127.0.0.0/8"), 16: parse_prefix("::1")}
LOOPBACKS = frozenset((bytes((127, 0, 0, 1)), bytes(15) + b"\1"))  # where NodePorts may be asked for


class Around(NamedTuple):
    """What of the node is the same for all Services of a family, worked out once."""

    node: Node
    options: Options
    size: int  # bytes of an address
    pods: tuple[Prefix, ...]
    here: tuple[Prefix, ...]  # whence the node itself calls
    node_ports: tuple[bytes, ...]


def around(node: Node, options: Options, size: int) -> Around:
    own = [address for address in node.addresses if len(address) == size]
    if node.node_port_addresses is None:
        node_ports = own[:1]
    else:
        node_ports = [address for address in own if any_holds(node.node_port_addresses, address)]
        asked = tuple([prefix for prefix in node.node_port_addresses if any_holds((_LOOPBACK[size],), prefix[0])])
        node_ports += [address for address in LOOPBACKS if len(address) == size and any_holds(asked, address)]
    return Around(
        node=node,
        options=options,
        size=size,
        pods=tuple([prefix for prefix in node.pod_cidrs if len(prefix[0]) == size]),
        here=(*[(address, size * 8) for address in own], _LOOPBACK[size]),
        node_ports=tuple(node_ports),
    )


class PortRules(NamedTuple):
    """What one port adds to the rules. frontends: each with the index of its class."""

    frontends: list[tuple[int, Frontend]]
    sets: list[EndpointSet]
    refused: list[Refusal]


class Uses(NamedTuple):
    """Which policies a port needs endpoints for."""

    cluster: bool
    local: bool


def uses(service: Service, external: bool) -> Uses:
    """external: it has a node port, a load balancer's address or an external IP. With policy Local traffic from pods
    and from the node itself still goes to all endpoints, as if it came in by the balancer."""
    return Uses(
        cluster=not service.internal_local or external,
        local=service.internal_local or (external and service.external_local),
    )


def plan_port(
    service: Service,
    port: ServicePort,
    cluster_ip: bytes,
    outside: list[tuple[int, bytes, str]],
    selection: Selection,
    here: Around,
) -> PortRules:
    """outside: (class, address, pointer) of the addresses that are not the cluster IP."""
    title = f"{service.namespace}/{service.name}:{port.name or port.port}"
    stem = f"{service.namespace}/{service.name}:{port.name}/{PROTOCOLS[port.protocol]}/{4 if here.size == 4 else 6}"
    cluster_key, local_key = f"{stem}/cluster", f"{stem}/local"
    internal = _internal(service, selection, here, cluster_key, local_key)
    external = _external(service, selection, here, cluster_key, local_key) if outside else ()
    origin = f"{service.origin} /spec/ports/{port.nth}"
    found = PortRules([], [], [])

    def add(rank: int, address: bytes, number: int, choices: tuple[Choice, ...]) -> None:
        if service.sockets and port.protocol == SCTP:
            choices = tuple([_by_socket(choice) for choice in choices])
        name = f"{title} {CLASSES[rank]}"
        frontend = Frontend(name, port.protocol, address, number, choices, service.affinity, service.kernel, origin)
        found.frontends.append((rank, frontend))

    add(0, cluster_ip, port.port, internal)
    for rank, address, _ in outside:
        number = port.node_port if CLASSES[rank] == NODE_PORT else port.port
        walled = CLASSES[rank] == BALANCER and service.source_ranges is not None
        add(rank, address, number, _walled(service, external, here) if walled else external)
    used = {choice.endpoints for _, frontend in found.frontends for choice in frontend.choices}
    for key, chosen in ((cluster_key, selection.cluster), (local_key, selection.local)):
        if key in used:
            found.sets.append(EndpointSet(key, _endpoints(chosen, here.node)))
    return found


def _endpoints(chosen: tuple[Candidate, ...], node: Node) -> tuple[Endpoint, ...]:
    own = node.addresses
    return tuple([Endpoint(one.address, one.port, True, one.last_resort, one.address in own) for one in chosen])


def outside_addresses(
    service: Service, port: ServicePort, here: Around
) -> tuple[list[tuple[int, bytes, str]], list[Refusal]]:
    """(class, address, pointer) of where a port is to be had beside the cluster IP, and what is not caught."""
    found: list[tuple[int, bytes, str]] = []
    refused: list[Refusal] = []

    def consider(rank: int, address: bytes, pointer: str, why: str) -> None:
        if why:
            reason = "ForbiddenExternalIP" if rank == 2 else "ForbiddenLoadBalancerIP"
            place = f"{service.origin} {pointer}"
            refused.append(Refusal(port_text(address, port.port), why, place, reason, service.id))
        else:
            found.append((rank, address, pointer))

    for ingress in service.ingress:
        if ingress.vip and len(ingress.address) == here.size:
            pointer = f"/status/loadBalancer/ingress/{ingress.nth}/ip"
            consider(1, ingress.address, pointer, forbidden_frontend(ingress.address, here.node, here.options))
    for address, nth in service.external_ips:
        if len(address) == here.size:
            why = external_ip_refused(address, here.node, here.options)
            consider(2, address, f"/spec/externalIPs/{nth}", why)
    if port.node_port:
        found += [(3, address, f"/spec/ports/{port.nth}/nodePort") for address in here.node_ports]
    return found, refused


def _by_hints(selection: Selection) -> str:
    return {NODE: ", those for this node", ZONE: ", those for this zone"}.get(selection.topology, "")


_NONE_AT_ALL = (Choice((), REJECT, why="no endpoint is ready"),)


def _internal(
    service: Service, selection: Selection, here: Around, cluster_key: str, local_key: str
) -> tuple[Choice, ...]:
    """What becomes of traffic to the cluster IP."""
    if not selection.some:
        return _NONE_AT_ALL
    key, why, pointer = cluster_key, f"any endpoint{_by_hints(selection)}", ""
    if service.internal_local:
        pointer = "/spec/internalTrafficPolicy"
        if not selection.local:
            return (
                Choice((), DROP, why="no endpoint on this node, and internalTrafficPolicy is Local", pointer=pointer),
            )
        key, why = local_key, "endpoints on this node"
    if here.options.masquerade_all:
        return (Choice((), FORWARD, key, True, why, pointer),)
    if not here.pods:
        return (Choice((), FORWARD, key, False, why, pointer),)
    return (
        Choice(here.pods, FORWARD, key, False, f"from a pod: {why}", pointer),
        Choice((), FORWARD, key, True, f"from outside the range of pods: {why}", pointer),
    )


def _external(
    service: Service, selection: Selection, here: Around, cluster_key: str, local_key: str
) -> tuple[Choice, ...]:
    """What becomes of traffic to node ports, load balancers and external IPs."""
    if not selection.some:
        return _NONE_AT_ALL
    any_one = f"any endpoint{_by_hints(selection)}"
    if not service.external_local:
        return (Choice((), FORWARD, cluster_key, True, any_one),)
    pointer = "/spec/externalTrafficPolicy"
    found = []
    if here.pods:
        found.append(Choice(here.pods, FORWARD, cluster_key, False, f"from a pod: {any_one}", pointer))
    found.append(Choice(here.here, FORWARD, cluster_key, True, f"from this node: {any_one}", pointer))
    if selection.local:
        found.append(Choice((), FORWARD, local_key, False, "from outside: endpoints on this node", pointer))
    else:
        why = "no endpoint on this node, and externalTrafficPolicy is Local"
        found.append(Choice((), DROP, why=why, pointer=pointer))
    return tuple(found)


def _by_socket(choice: Choice) -> Choice:
    """Of SCTP, as an annotation asks for: a socket of it speaks with an address of its own."""
    if choice.action != FORWARD or choice.replace_source:
        return choice
    why = f"{choice.why}; a socket of SCTP can't keep the client's address"
    return dataclasses.replace(choice, replace_source=True, why=why)


def _walled(service: Service, choices: tuple[Choice, ...], here: Around) -> tuple[Choice, ...]:
    """The choices for those in loadBalancerSourceRanges, and nothing for others. A range that holds the node lets the
    balancer's own address in as well, which is what a node calls from that has it."""
    assert service.source_ranges is not None
    allowed = tuple([prefix for prefix in service.source_ranges if len(prefix[0]) == here.size])
    primary = here.node.primary(here.size)
    if primary is not None and any_holds(allowed, primary):
        bits = here.size * 8
        allowed += tuple([(one.address, bits) for one in service.ingress if one.vip and len(one.address) == here.size])
    found = []
    for choice in choices:
        sources = intersection(choice.sources, allowed) if choice.sources else allowed
        if sources:
            found.append(
                Choice(sources, choice.action, choice.endpoints, choice.replace_source, choice.why, choice.pointer)
            )
    why = "not in loadBalancerSourceRanges"
    return (*found, Choice((), DROP, why=why, pointer="/spec/loadBalancerSourceRanges"))
