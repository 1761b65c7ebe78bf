"""The plan that links a pod to the node: a veth pair with a host route on the node's side, and no bridge.

The pod's address is a /32 or /128 of its own end. All that it sends goes to one gateway, 169.254.1.1 or fe80::1, which
it has as a permanent neighbour with the MAC of the other end; the node has such entries for the pod. So no ARP and no
neighbour discovery is needed, none is answered for others, and two pods meet only by the node's routing.
"""

from __future__ import annotations

from ..oci import names
from .model.plan import Builder, Plan
from .model.steps import NEXT, PARENT, UNDO, CheckNs, Netlink, Openat2, WriteFile
from .namespace.links import (
    End,
    address_new,
    default_route,
    family_of,
    link_delete,
    neighbour,
    route_to,
    veth_new,
)
from .namespace.netlink import link_up

ENOENT, ENODEV = 2, 19
O_NONBLOCK = 0o4000
AF_INET = 2
GATEWAYS = {4: bytes((169, 254, 1, 1)), 16: b"\xfe\x80" + bytes(13) + b"\x01"}  # by the length of an address
PROC_SUPER_MAGIC = 0x9FA0


class Attachment:
    """A pod's link. netns: the path of its network namespace. host, pod: the two ends. addresses: the pod's, packed.
    mtu. numbered: the node's end gets the gateway's IPv4 address, where the node has none to speak to pods with.
    localnet: the node's 127.0.0.1 may be masqueraded over it, for ports of the host."""

    __slots__ = ("addresses", "host", "localnet", "mtu", "netns", "numbered", "pod")

    def __init__(
        self,
        netns: str,
        host: End,
        pod: End,
        addresses: tuple[bytes, ...],
        *,
        mtu: int = 1500,
        numbered: bool = False,
        localnet: bool = False,
    ) -> None:
        self.netns = netns
        self.host = host
        self.pod = pod
        self.addresses = addresses
        self.mtu = mtu
        self.numbered = numbered
        self.localnet = localnet


def plan_attach(a: Attachment) -> Plan:
    """Makes the link, or nothing."""
    b = Builder()
    ns = b.slot("netns")
    b.add(
        PARENT,
        Openat2(path=a.netns, flags=O_NONBLOCK, out=ns, why="the pod's network namespace"),
        CheckNs(ns=ns, nstype=names.NAMESPACES["network"], own=""),
    )
    message, patch = veth_new(a.host, a.pod, a.mtu)
    assert patch is not None
    made = Netlink(msg=message, patch=patch, fd=ns, why=f"{a.host.name} here and up, {a.pod.name} in the pod")
    b.add(PARENT, made)
    gone, _ = link_delete(a.host.name)
    b.add(UNDO, Netlink(msg=gone, patch=NEXT, guard=made))
    for family, name, value, why in _settings(a):
        path = f"/proc/sys/net/{family}/conf/{a.host.name}/{name}"
        step = WriteFile(path=path, data=value, magic=PROC_SUPER_MAGIC, on=((ENOENT, None),), why=why)
        b.add(PARENT, step)
    here, there = _here(a), _there(a)
    b.add(PARENT, Netlink(msg=here, patch=NEXT, why="the node's routes to the pod, and whose MAC it has"))
    b.add(PARENT, Netlink(msg=there, patch=NEXT, ns=ns, why="the pod's addresses, and the way out"))
    return b.plan()


def _settings(a: Attachment) -> list[tuple[str, str, str, str]]:
    found = [
        ("ipv4", "rp_filter", "1", "a pod sends from its own address alone"),
        ("ipv6", "accept_ra", "0", "a pod is no router of the node's (CVE-2020-10749)"),
        ("ipv4", "accept_redirects", "0", "nor says it who is"),
        ("ipv6", "accept_redirects", "0", ""),
    ]
    if a.localnet:
        found.append(("ipv4", "route_localnet", "1", "ports of the host at 127.0.0.1"))
    return found


def _here(a: Attachment) -> bytes:
    messages = []
    for address in a.addresses:
        if len(address) == 16 or a.numbered:
            messages.append(address_new(a.host.index, GATEWAYS[len(address)]))
        messages += [route_to(a.host.index, address), neighbour(a.host.index, address, a.pod.mac)]
    return b"".join(messages)


def _there(a: Attachment) -> bytes:
    messages = [link_up(a.pod.index)[0]]
    for address in a.addresses:
        gateway = GATEWAYS[len(address)]
        messages += [
            address_new(a.pod.index, address),
            neighbour(a.pod.index, gateway, a.host.mac),
            default_route(a.pod.index, gateway),
        ]
    return b"".join(messages)


def plan_detach(name: str) -> Plan:
    """Removes the link by the name of the node's end; nothing where there is none."""
    b = Builder()
    message, _ = link_delete(name)
    b.add(PARENT, Netlink(msg=message, patch=NEXT, on=((ENODEV, None),), why="with it goes the pod's end"))
    return b.plan()


__all__ = ["AF_INET", "GATEWAYS", "Attachment", "End", "family_of", "plan_attach", "plan_detach"]
