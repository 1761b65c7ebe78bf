"""rtnetlink messages for a pod's link to the node: a veth pair with its ends in place, addresses, routes, neighbours.

Every index is chosen by the planner and given to the kernel, so that nothing has to be asked between two requests.
"""

from __future__ import annotations

from struct import Struct

from .netlink import _header, _ifaddrmsg, _ifinfomsg, _rtattr, _u32, attribute, message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .netlink import Message

RTM_NEWLINK, RTM_DELLINK, RTM_NEWADDR, RTM_NEWROUTE, RTM_NEWNEIGH = 16, 17, 20, 24, 28
NLM_F_EXCL, NLM_F_REPLACE, NLM_F_CREATE = 0x200, 0x100, 0x400
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINKINFO, IFLA_NET_NS_FD = 1, 3, 4, 18, 28
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
IFA_F_NODAD = 0x02
IFF_UP = 1
RTA_DST, RTA_OIF, RTA_GATEWAY = 1, 4, 5
RT_TABLE_MAIN, RTPROT_STATIC, RTN_UNICAST = 254, 4, 1
SCOPE_UNIVERSE, SCOPE_LINK = 0, 253
RTNH_F_ONLINK = 4
NDA_DST, NDA_LLADDR = 1, 2
NUD_PERMANENT = 0x80
AF_INET, AF_INET6 = 2, 10

_rtmsg = Struct("=BBBBBBBBI")  # family, dst length, src length, tos, table, protocol, scope, type, flags
_ndmsg = Struct("=BxxxiHBB")  # family, index, state, flags, type


class End:
    """One end of a veth pair: its name, index and MAC."""

    __slots__ = ("index", "mac", "name")

    def __init__(self, name: str, index: int, mac: bytes) -> None:
        self.name = name
        self.index = index
        self.mac = mac


def family_of(address: bytes) -> int:
    return AF_INET if len(address) == 4 else AF_INET6


def veth_new(here: End, there: End, mtu: int) -> Message:
    """Makes the pair, `there` in the namespace of the patched descriptor. EEXIST where a name is taken, EBUSY an
    index. `here` is up then; the other end can't be before it has a peer (veth_open() in the kernel)."""
    start = _ifinfomsg.pack(0, 0, there.index, 0, 0) + _end(there, mtu)
    peer_at = len(start) + _rtattr.size  # of the descriptor's number, in the peer's attribute
    peer = attribute(VETH_INFO_PEER, start + attribute(IFLA_NET_NS_FD, bytes(4)))
    kind = attribute(IFLA_INFO_KIND, b"veth\0")
    info = attribute(IFLA_LINKINFO, kind + attribute(IFLA_INFO_DATA, peer))
    head = _ifinfomsg.pack(0, 0, here.index, IFF_UP, IFF_UP) + _end(here, mtu)
    before = len(head) + _rtattr.size + len(kind) + _rtattr.size + _rtattr.size
    return message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, head + info), _header.size + before + peer_at


def _end(end: End, mtu: int) -> bytes:
    name = attribute(IFLA_IFNAME, end.name.encode() + b"\0")
    return name + attribute(IFLA_ADDRESS, end.mac) + attribute(IFLA_MTU, _u32(mtu))


def link_delete(name: str) -> Message:
    """With it goes the other end, and every route over either."""
    return message(RTM_DELLINK, 0, _ifinfomsg.pack(0, 0, 0, 0, 0) + attribute(IFLA_IFNAME, name.encode() + b"\0")), None


def address_new(index: int, address: bytes) -> bytes:
    """An address of its own alone: /32 or /128. An IPv6 one is not asked for first, as nobody else is on the link."""
    body = _ifaddrmsg.pack(family_of(address), len(address) * 8, 0, SCOPE_UNIVERSE, index)
    body += attribute(IFA_ADDRESS, address)
    if len(address) == 4:
        body += attribute(IFA_LOCAL, address)
    else:
        body += attribute(IFA_FLAGS, _u32(IFA_F_NODAD))
    return message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body)


def route_to(index: int, address: bytes) -> bytes:
    """The route to one address, which is at the other end."""
    family = family_of(address)
    scope = SCOPE_LINK if family == AF_INET else SCOPE_UNIVERSE
    body = _rtmsg.pack(family, len(address) * 8, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, scope, RTN_UNICAST, 0)
    body += attribute(RTA_DST, address) + attribute(RTA_OIF, _u32(index))
    return message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body)


def default_route(index: int, gateway: bytes) -> bytes:
    """The route to all else, by a gateway that is on the link though no address says so."""
    family, flags = family_of(gateway), RTNH_F_ONLINK
    body = _rtmsg.pack(family, 0, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, SCOPE_UNIVERSE, RTN_UNICAST, flags)
    body += attribute(RTA_GATEWAY, gateway) + attribute(RTA_OIF, _u32(index))
    return message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body)


def neighbour(index: int, address: bytes, mac: bytes) -> bytes:
    """Who has an address, for good: nobody is asked for it, so nobody can answer in another's place."""
    body = _ndmsg.pack(family_of(address), index, NUD_PERMANENT, 0, 0)
    body += attribute(NDA_DST, address) + attribute(NDA_LLADDR, mac)
    return message(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body)
