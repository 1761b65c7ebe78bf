"""Addresses that an object of the cluster shall not lead to, or take for itself.

Whoever may write an EndpointSlice could otherwise reach through the proxy what is not reachable without it: services
of the node that listen on its loopback, a cloud's metadata, the kubelet (CVE-2020-8558, CVE-2021-25737, and -25740).
Whoever may write external addresses could take over any address of the world for all pods (CVE-2020-8554).
"""

from __future__ import annotations

from ..kube.addresses import any_holds, parse_prefix, prefix_text
from .model import EndpointSlice, Node, Options, SliceEndpoint

_SPECIAL = {
    4: (
        ("0.0.0.0/8", "no address of a host"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("224.0.0.0/4", "multicast"),
        ("255.255.255.255", "broadcast"),
    ),
    16: (("::", "no address of a host"), ("::1", "loopback"), ("fe80::/10", "link-local"), ("ff00::/8", "multicast")),
}
_PREFIXES = {size: tuple([(parse_prefix(text), why) for text, why in rows]) for size, rows in _SPECIAL.items()}
# What decides without a look at the prefixes; nearly every address passes here.
_SUSPECT = {4: frozenset((0, 127, 169, *range(224, 240), 255)), 16: frozenset((0, 0xFE, 0xFF))}


def special(address: bytes) -> str:
    """What is special about it; "" for an ordinary address."""
    if address[0] in _SUSPECT[len(address)]:
        for prefix, why in _PREFIXES[len(address)]:
            if any_holds((prefix,), address):
                return why
    return ""


def forbidden_endpoint(endpoint: SliceEndpoint, owner: EndpointSlice, node: Node, options: Options) -> str:
    """Why no traffic goes to this endpoint; "" if it may."""
    address = endpoint.address
    why = special(address)
    if why:
        return why
    if node.service_cidrs and any_holds(node.service_cidrs, address):
        return "in the range of services, which would be a loop"
    if address in node.addresses and not _owned(endpoint, owner, node, options):
        return "an address of this node, and of no pod that shares its network"
    return ""


def _owned(endpoint: SliceEndpoint, owner: EndpointSlice, node: Node, options: Options) -> bool:
    """The node's own addresses are endpoints of its pods with hostNetwork, of which a slice names pod and node; who
    knows the node's pods holds it to that. And of the API server, whose slice names neither: it is default/kubernetes,
    which the API server itself writes."""
    if owner.service_id == ("default", "kubernetes"):
        return True
    if endpoint.pod is None or endpoint.node != node.name:
        return False
    return options.host_pods is None or endpoint.pod in options.host_pods


def forbidden_frontend(address: bytes, node: Node, options: Options, *, cluster: bool = False) -> str:
    """Why packets for this address are not caught; "" if they may. cluster: as a Service's cluster IP, which is
    meant to be in the range of services."""
    why = special(address)
    if why:
        return why
    if address in node.addresses:
        return "an address of this node"
    if cluster:
        return ""
    if address in options.dns:
        return "the address of the cluster's DNS"
    if any_holds(node.service_cidrs, address):
        return "in the range of services"
    if any_holds(node.pod_cidrs, address):
        return "in the range of pods"
    return ""


def external_ip_refused(address: bytes, node: Node, options: Options) -> str:
    """Why an external IP is not taken: they are off but where an administrator lets them be (KEP-5707)."""
    if not any_holds(options.external_ips, address):
        allowed = ", ".join([prefix_text(prefix) for prefix in options.external_ips])
        return f"not in what is allowed for external IPs ({allowed})" if allowed else "external IPs are not allowed"
    return forbidden_frontend(address, node, options)
