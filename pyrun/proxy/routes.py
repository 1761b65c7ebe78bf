"""Routes by which service addresses are this node's own, and those by which replies find transparent sockets.

Any address of a service range becomes local (``ip route add local RANGE dev lo src NODE``): no link has it, no ARP is
answered for it, and what the node itself sends there comes from the node's address. A socket of the data plane that
speaks with a client's address is found by the mark of what nftables' `socket transparent` sees: that mark's rule leads
to a table in which everything is local. A packet with a forged address meets no such socket, and no mark.

All that is made here carries the number PROTOCOL, by which it is known again: what another made is never taken away,
and what an earlier daemon left is kept. Sources: ip-route(8), ip-rule(8), Documentation/networking/tproxy.rst.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
from struct import Struct

from ..errors import FailedPrecondition, PyrunError, reason
from ..plan.namespace.netlink import NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, attribute, message
from .netlink import NETFILTER, ROUTE, Netlink, attributes
from .nft import messages
from .rules import SCTP, TCP, UDP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .rules import Prefix, Rules

PROTOCOL = 121  # of routes and rules: whose they are (rt_protos); nobody's in iproute2's list
MARK = 0x00100000  # one bit, beside kube-proxy's 0x4000, 0x8000 and Cilium's 0x0f00
TABLE, PRIORITY = 1097, 97
MARK_TABLE, _NOTE = "pyrun_transparent", "tcp_tw_reuse was "
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34
RTA_DST, RTA_OIF, RTA_PRIORITY, RTA_PREFSRC, RTA_TABLE = 1, 4, 6, 7, 15
FRA_PRIORITY, FRA_FWMARK, FRA_TABLE, FRA_FWMASK, FRA_PROTOCOL = 6, 10, 15, 16, 21
RTN_UNICAST, RTN_LOCAL, SCOPE_HOST, SCOPE_UNIVERSE, FR_ACT_TO_TBL = 1, 2, 254, 0, 1
RT_TABLE_COMPAT, RT_TABLE_LOCAL = 252, 255
AF_INET, AF_INET6 = 2, 10
_ICMP, _ICMPV6 = 1, 58  # IANA protocol numbers
# Connections with a client's address come from some thousand ports, which an ended one holds for a minute unless "1".
REUSE = "/proc/sys/net/ipv4/tcp_tw_reuse"
LOOPBACK = 1  # the index of lo in every namespace
_rtmsg = Struct("=BBBBBBBBI")  # family, dst length, src length, tos, table, protocol, scope, type, flags
_u32 = Struct("=I").pack


class Route:
    """A route as the kernel tells it: its table, type, protocol, prefix, link and preferred source (b"" for none)."""

    __slots__ = ("kind", "link", "prefix", "protocol", "source", "table")

    def __init__(self, payload: bytes) -> None:
        family, bits, _, _, table, self.protocol, _, self.kind, _ = _rtmsg.unpack_from(payload)
        found = attributes(payload[_rtmsg.size :])
        self.prefix: Prefix = (found.get(RTA_DST, bytes(4 if family == AF_INET else 16)), bits)
        self.table = int.from_bytes(found.get(RTA_TABLE, bytes((table,))), "little")
        self.source = found.get(RTA_PREFSRC, b"")
        self.link = int.from_bytes(found.get(RTA_OIF, b""), "little")


# --- messages, pure ---------------------------------------------------------------------------------------------------


def local_route(type_: int, prefix: Prefix, table: int, source: bytes) -> bytes:
    """The request to add (RTM_NEWROUTE) or delete a local route of ours. source: b"" for none."""
    address, bits = prefix
    family = AF_INET if len(address) == 4 else AF_INET6
    scope = SCOPE_HOST if family == AF_INET else SCOPE_UNIVERSE
    short = table if table < 256 else RT_TABLE_COMPAT
    body = _rtmsg.pack(family, bits, 0, 0, short, PROTOCOL, scope, RTN_LOCAL, 0)
    body += (attribute(RTA_DST, address) if bits else b"") + attribute(RTA_OIF, _u32(LOOPBACK))
    body += attribute(RTA_TABLE, _u32(table)) + (attribute(RTA_PREFSRC, source) if source else b"")
    return message(type_, NLM_F_CREATE | NLM_F_EXCL if type_ == RTM_NEWROUTE else 0, body)


def mark_rule(type_: int, family: int) -> bytes:
    """The request to add (RTM_NEWRULE) or delete the rule that leads marked packets to TABLE."""
    body = _rtmsg.pack(family, 0, 0, 0, RT_TABLE_COMPAT, 0, 0, FR_ACT_TO_TBL, 0)
    body += attribute(FRA_PRIORITY, _u32(PRIORITY)) + attribute(FRA_TABLE, _u32(TABLE))
    body += attribute(FRA_FWMARK, _u32(MARK)) + attribute(FRA_FWMASK, _u32(MARK))
    body += attribute(FRA_PROTOCOL, bytes((PROTOCOL,)))
    return message(type_, NLM_F_CREATE | NLM_F_EXCL if type_ == RTM_NEWRULE else 0, body)


def plan_mark_table(reuse: str) -> str:
    """The nftables table that marks what belongs to a transparent socket, as nft reads it, in place of one before.
    reuse: what tcp_tw_reuse was, which the table tells whoever takes it away; "" where it can't be read."""
    note = f'comment "{_NOTE}{reuse}"\n' if reuse else ""
    name = f"inet {MARK_TABLE}"
    # By number: nft asks /etc/protocols for a name, which a minimal Debian has not got. Of ICMP it is what routers tell
    # of a socket's packets, which is meant for it.
    kinds = ", ".join(str(protocol) for protocol in (TCP, UDP, SCTP, _ICMP, _ICMPV6))
    # Where somebody has set route_localnet, a neighbour's packets for loopback would come to NodePorts there.
    foreign = "iif != lo ip daddr 127.0.0.0/8 drop"
    rule = f"meta l4proto {{ {kinds} }} socket transparent 1 meta mark set meta mark or {MARK:#x}"
    chain = f"chain prerouting {{\ntype filter hook prerouting priority mangle; policy accept;\n{foreign}\n{rule}\n}}"
    return f"table {name}\ndelete table {name}\ntable {name} {{\n{note}{chain}\n}}\n"


def addresses_to_catch(rules: Rules, node: Iterable[bytes]) -> set[Prefix]:
    """The prefixes that have to be local: the ranges, and each frontend's address outside of them that is not the
    node's own (of load balancers, external ones). Pure."""
    own = set(node)
    wanted = set(rules.ranges)
    for address in {frontend.address for frontend in rules.frontends}:
        if address not in own and not _is_loopback(address) and not any(holds(r, address) for r in rules.ranges):
            wanted.add((address, len(address) * 8))
    return wanted


def holds(prefix: Prefix, address: bytes) -> bool:
    """Whether the address is in the prefix."""
    base, bits = prefix
    if len(base) != len(address):
        return False
    shift = len(base) * 8 - bits
    return int.from_bytes(base, "big") >> shift == int.from_bytes(address, "big") >> shift


def _is_loopback(address: bytes) -> bool:
    return address[0] == 127 if len(address) == 4 else address == bytes(15) + b"\1"


def show(prefix: Prefix) -> str:
    return f"{ipaddress.ip_address(prefix[0])}/{prefix[1]}"


# --- the carrier-out --------------------------------------------------------------------------------------------------


class Routes:
    """The routes in the network namespace of the thread that makes this. Not for two threads at once.

    node: the node's own addresses, the first of each family being the source of what the node sends to services.
    transparent: the mark's rule and table too. FailedPrecondition where a range is another's network already.
    """

    def __init__(self, node: Iterable[bytes], *, transparent: bool = True) -> None:
        self._node = tuple(node)
        self._netlink = Netlink(ROUTE)
        self._transparent = transparent
        # Also one of which the node has no address: its pods may have some, and what is made has to go again.
        self._families = [AF_INET, AF_INET6] if os.path.exists("/proc/thread-self/net/if_inet6") else [AF_INET]
        self._held: dict[Prefix, bytes] | None = None  # not known
        if transparent:
            self._start_transparent()

    def apply(self, wanted: Iterable[Prefix]) -> int:
        """Exactly these prefixes are local; returns how many routes changed. An address that is local without us, such
        as one that a link has, is left alone. PyrunError: the next call looks first at what there is, for who takes
        an address of the node away takes routes with it."""
        held, self._held = self._held, None
        if held is None:
            held = {route.prefix: route.source for route in self._ours(RT_TABLE_LOCAL)}
        changed = self._make(held, wanted)
        self._held = held
        return changed

    def _make(self, held: dict[Prefix, bytes], wanted: Iterable[Prefix]) -> int:
        want = {prefix: self._source_of(prefix) for prefix in wanted}
        new = {p: source for p, source in want.items() if held.get(p) != source}
        gone = [p for p in held if p not in want]
        if new:
            self._check(new)
        for prefix, source in new.items():
            if prefix in held:  # with another source: the node's address has changed
                self._remove(prefix, held.pop(prefix))
            if self._add(prefix, source):
                held[prefix] = source
        for prefix in gone:
            self._remove(prefix, held.pop(prefix))
        return len(new) + len(gone)

    def close(self, *, remove: bool = True) -> None:
        """With remove, all that carries our number goes; else it stays for the next daemon."""
        try:
            if remove:
                for route in self._ours(RT_TABLE_LOCAL):
                    self._remove(route.prefix, route.source)
                self._held = None
                if self._transparent:
                    self._stop_transparent()
        finally:
            self._netlink.close()

    def _source_of(self, prefix: Prefix) -> bytes:
        return next((address for address in self._node if len(address) == len(prefix[0])), b"")

    def _routes(self) -> list[Route]:
        found = []
        for family in self._families:
            request = message(RTM_GETROUTE, NLM_F_DUMP, _rtmsg.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))
            found += [Route(payload) for type_, payload in self._netlink.dump(request) if type_ == RTM_NEWROUTE]
        return found

    def _ours(self, table: int) -> list[Route]:
        return [r for r in self._routes() if r.protocol == PROTOCOL and r.kind == RTN_LOCAL and r.table == table]

    def _check(self, new: Iterable[Prefix]) -> None:
        """A local route comes before all others: what reaches a part of the range otherwise would be cut off."""
        routes = [r for r in self._routes() if r.protocol != PROTOCOL and r.kind in (RTN_UNICAST, RTN_LOCAL)]
        for prefix in new:
            width = len(prefix[0]) * 8
            for route in routes if prefix[1] < width else ():
                if route.prefix[1] >= prefix[1] and holds(prefix, route.prefix[0]):
                    raise FailedPrecondition(
                        f"service range {show(prefix)} holds {show(route.prefix)}, which the node reaches by a link",
                        hint="`ip route get` tells by which link; service, pod and node networks must not overlap",
                    )

    def _add(self, prefix: Prefix, source: bytes) -> bool:
        """False where it is local without us."""
        try:
            self._netlink.do(local_route(RTM_NEWROUTE, prefix, RT_TABLE_LOCAL, source))
        except FileExistsError:
            return False
        except OSError as e:
            raise PyrunError(f"route local {show(prefix)}: {reason(e)}", hint=_hint(e, source)) from None
        return True

    def _remove(self, prefix: Prefix, source: bytes) -> None:
        try:
            self._netlink.do(local_route(RTM_DELROUTE, prefix, RT_TABLE_LOCAL, source))
        except ProcessLookupError:  # gone: lo was down, or the source address taken away
            pass
        except OSError as e:
            raise PyrunError(f"route local {show(prefix)} can't be removed: {reason(e)}") from None

    @classmethod
    def remove_all(cls) -> None:
        """Takes away what a daemon has left of either mode, in all families."""
        left = cls((bytes(4), bytes(16)), transparent=False)
        left._transparent = True
        left.close(remove=True)

    # --- sockets with a client's address ---

    def _start_transparent(self) -> None:
        have = self._rules()
        tables = {len(r.prefix[0]) for r in self._ours(TABLE)}
        for family in self._families:
            width = 4 if family == AF_INET else 16
            try:
                if width not in tables:
                    self._netlink.do(local_route(RTM_NEWROUTE, (bytes(width), 0), TABLE, b""))
                if family not in have:
                    self._netlink.do(mark_rule(RTM_NEWRULE, family))
            except OSError as e:
                if e.errno != errno.EEXIST:
                    raise PyrunError(f"the rule for transparent sockets: {reason(e)}") from None
        _change_table(plan_mark_table(_noted_reuse() or _read(REUSE)))
        _write(REUSE, "1")

    def _stop_transparent(self) -> None:
        before = _noted_reuse()
        if before and _read(REUSE) == "1":  # else somebody has changed it since
            _write(REUSE, before)
        _change_table(f"table inet {MARK_TABLE}\ndelete table inet {MARK_TABLE}\n")
        for family in self._rules():
            self._netlink.do(mark_rule(RTM_DELRULE, family))
        for route in self._ours(TABLE):
            self._netlink.do(local_route(RTM_DELROUTE, route.prefix, TABLE, b""))

    def _rules(self) -> set[int]:
        """The families that have our rule."""
        found = set()
        for family in self._families:
            request = message(RTM_GETRULE, NLM_F_DUMP, _rtmsg.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))
            for type_, payload in self._netlink.dump(request):
                have = attributes(payload[_rtmsg.size :])
                if type_ == RTM_NEWRULE and have.get(FRA_PROTOCOL) == bytes((PROTOCOL,)):
                    found.add(family)
        return found


def _change_table(text: str) -> None:
    """The one table that marks packets of transparent sockets. Services never pass by it."""
    from ..nft import run_nft

    way = "--proxy-mode nftables works without it"
    run_nft(text, "marks what belongs to a socket with a client's address", "`socket` (CONFIG_NFT_SOCKET)", way)


def _noted_reuse() -> str:
    """What tcp_tw_reuse was before us, as our table tells, also after a kill; "" where it does not."""
    with contextlib.closing(Netlink(NETFILTER)) as netlink:
        for _, payload in netlink.dump(messages.ask(messages.GETTABLE, messages.INET)):
            fields = attributes(payload[4:])
            if fields.get(1) == MARK_TABLE.encode() + b"\0":
                _, _, after = fields.get(6, b"").partition(_NOTE.encode())
                return after.partition(b"\0")[0].decode("ascii", "replace")
    return ""


def _read(path: str) -> str:
    """A sysctl; "" where it can't be read."""
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""


def _write(path: str, value: str) -> None:
    """Where it can't be written, it stays as it is."""
    try:
        if _read(path) != value:
            with open(path, "w") as file:
                file.write(value)
    except OSError:
        pass


def _hint(e: OSError, source: bytes) -> str | None:
    if e.errno == errno.EINVAL and source:
        return f"is {ipaddress.ip_address(source)}, the node's address, an address of a link of this node?"
    return None
