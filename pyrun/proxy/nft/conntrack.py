"""Flows of UDP that the kernel still leads to an endpoint that is gone, or nowhere: looked for and ended.

A datagram of a known flow asks no rule. So a client that never pauses would send to a dead endpoint for ever
(kubernetes#139628). A flow to an endpoint that is one still is left alone, also over a restart (kubernetes#122740).
Source: linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import contextlib
from struct import Struct

from ...plan.namespace.netlink import NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, attribute
from ..netlink import NETFILTER, Netlink, attributes
from ..rules import UDP
from .messages import IPV4, IPV6, nest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from ..rules import Key

    Target = tuple[bytes, int]  # address, port

_CONNTRACK, _GET, _DELETE = 1 << 8, 1, 2
_ORIG, _REPLY, _ID = 1, 2, 12
_header = Struct("=IHHII")
_nfgen = Struct(">BBH")


class Flow:
    """frontend: what the client sends to; target: who answers, the same where nothing is translated. asked: the tuple
    and number by which the kernel knows it."""

    __slots__ = ("asked", "family", "frontend", "target")

    def __init__(self, payload: bytes) -> None:
        self.family = payload[0]
        found = attributes(payload[4:])
        _, _, address, port, protocol = _tuple(found.get(_ORIG, b""))
        source, source_port, *_ = _tuple(found.get(_REPLY, b""))
        self.frontend: Key = (protocol, address, port)
        self.target: Target = (source, source_port)
        self.asked = nest(_ORIG, found.get(_ORIG, b"")) + (attribute(_ID, found[_ID]) if _ID in found else b"")


def _tuple(data: bytes) -> tuple[bytes, int, bytes, int, int]:
    """Source, its port, destination, its port, protocol."""
    found = attributes(data)
    ip, proto = attributes(found.get(1, b"")), attributes(found.get(2, b""))
    source, destination = ip.get(1) or ip.get(3) or b"", ip.get(2) or ip.get(4) or b""
    ports = [int.from_bytes(proto.get(kind, b""), "big") for kind in (2, 3)]
    return source, ports[0], destination, ports[1], proto.get(1, b"\0")[0]


def stale(flows: Iterator[Flow], targets: Mapping[Key, Collection[Target]]) -> Iterator[Flow]:
    """Flows to one of these frontends that lead to none of its targets. Pure."""
    for flow in flows:
        mine = targets.get(flow.frontend)
        if mine is not None and flow.target not in mine:
            yield flow


def _message(kind: int, family: int, flags: int, body: bytes) -> bytes:
    length = _header.size + _nfgen.size + len(body)
    return _header.pack(length, _CONNTRACK | kind, NLM_F_REQUEST | flags, 1, 0) + _nfgen.pack(family, 0, 0) + body


def end_stale_flows(targets: Mapping[Key, Collection[Target]]) -> int:
    """How many flows were ended. targets: of the frontends to look at, no matter which protocol; only UDP's are. The
    table is that of the thread's network namespace."""
    udp = {key: value for key, value in targets.items() if key[0] == UDP}
    ended = 0
    if not udp:
        return ended
    with contextlib.closing(Netlink(NETFILTER)) as netlink:
        for family in {IPV4 if len(address) == 4 else IPV6 for _, address, _ in udp}:
            flows = (Flow(payload) for _, payload in netlink.dump(_message(_GET, family, NLM_F_DUMP, b"")))
            for flow in list(stale(flows, udp)):
                with contextlib.suppress(FileNotFoundError):  # it ended by itself
                    netlink.do(_message(_DELETE, family, NLM_F_ACK, flow.asked))
                    ended += 1
    return ended
