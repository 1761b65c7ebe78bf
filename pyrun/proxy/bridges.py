"""Pods on a bridge of the node, as the CNI plugin `bridge` has them.

Two ports of one bridge answer each other at layer 2: what an endpoint sends to the client's address goes there, and not
to the socket of the data plane that has spoken with it. So where such a client calls, endpoints see the node.
"""

from __future__ import annotations

import contextlib
import dataclasses
from struct import Struct

from ..kube.addresses import intersection
from ..plan.namespace.links import IFLA_INFO_KIND, IFLA_LINKINFO
from ..plan.namespace.netlink import IFA_ADDRESS, IFA_LOCAL, NLM_F_DUMP, RTM_GETADDR, attribute, message
from .netlink import ROUTE, Netlink, attributes
from .rules import FORWARD, Choice, Frontend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .rules import Prefix

RTM_GETLINK, SCOPE_LINK = 18, 253
EVERYBODY: tuple[Prefix, ...] = ((bytes(4), 0), (bytes(16), 0))
_KIND = b"bridge\0"
_ifinfomsg = Struct("=BxHiII")  # family, type, index, flags, change
_ifaddrmsg = Struct("=BBBBI")  # family, prefix length, flags, scope, index


def bridged(node: Iterable[bytes]) -> tuple[Prefix, ...]:
    """The networks of bridges in this thread's network namespace, sorted. Not of one that has an address of the node:
    there its neighbours are, and not its pods. OSError."""
    own = set(node)
    found: dict[int, list[Prefix]] = {}
    with contextlib.closing(Netlink(ROUTE)) as netlink:
        kind = attribute(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, _KIND))
        links = netlink.dump(message(RTM_GETLINK, NLM_F_DUMP, _ifinfomsg.pack(0, 0, 0, 0, 0) + kind))
        bridges = {_ifinfomsg.unpack_from(payload)[2] for _, payload in links if _is_bridge(payload)}
        replies = netlink.dump(message(RTM_GETADDR, NLM_F_DUMP, bytes(_ifaddrmsg.size))) if bridges else []
    for _, payload in replies:
        _, length, _, scope, index = _ifaddrmsg.unpack_from(payload)
        if index not in bridges or scope == SCOPE_LINK:
            continue
        fields = attributes(payload[_ifaddrmsg.size :])
        address = fields.get(IFA_LOCAL) or fields[IFA_ADDRESS]
        found.setdefault(index, []).append((address, length))
    some = [pair for pairs in found.values() if not own.intersection([one for one, _ in pairs]) for pair in pairs]
    return tuple(sorted({_network(address, length) for address, length in some}))


def _is_bridge(payload: bytes) -> bool:
    info = attributes(attributes(payload[_ifinfomsg.size :]).get(IFLA_LINKINFO, b""))
    return info.get(IFLA_INFO_KIND) == _KIND


def _network(address: bytes, length: int) -> Prefix:
    shift = len(address) * 8 - length
    return (int.from_bytes(address, "big") >> shift << shift).to_bytes(len(address), "big"), length


def seeing_the_node(frontends: tuple[Frontend, ...], networks: tuple[Prefix, ...]) -> tuple[Frontend, ...]:
    """The same frontends, with endpoints that see the node where a client of these networks calls. Pure."""
    if not networks:
        return frontends
    return tuple([dataclasses.replace(one, choices=tuple(_choices(one, networks))) for one in frontends])


def _choices(frontend: Frontend, networks: tuple[Prefix, ...]) -> Iterable[Choice]:
    width = len(frontend.address)
    mine = tuple([network for network in networks if len(network[0]) == width])
    for choice in frontend.choices:
        if choice.action == FORWARD and not choice.replace_source:
            if here := intersection(mine, choice.sources or EVERYBODY):
                yield dataclasses.replace(choice, sources=here, replace_source=True)
        yield choice
