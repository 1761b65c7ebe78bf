"""The form of the rules: which tables, chains and maps there are, whatever services there are. Pure.

A table for each family, with these maps:

  services   address . protocol . port            → a verdict: goto the chain that carries out the frontend's choice
  own        endpoint . endpoint                     who calls itself by a service
  allocated  address                                 of the ranges that a service has
  keeping    address . protocol . port            → jump to the chain that notes which endpoint the client has
  kept       client . address . protocol . port   → endpoint's address . port, put there by packets, for some time

Chains do not grow with services: there is one for each number of endpoints, in some VARIANTS with counters of their
own, so that two services in step do not share turns. A list of sources has one for all frontends with this list. With
these chains come maps of the same name:

  of…        address . protocol . port . turn     → endpoint's address . port
  from_…     address . protocol . port . choice   → a verdict, where choices go by the client's address

A turn is choice << 16 | number of the endpoint. The kernel walks through all elements of a map for which a rule is new:
so no chain that comes later looks into a map that others have filled.
"""

from __future__ import annotations

import sys
from hashlib import blake2b

from . import messages as m

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    from ..rules import Prefix, Rules
else:
    from typing import NamedTuple

TABLE = "pyrun_services"
VERSION, WALLS_VERSION = b"pyrun services 4", b"pyrun walls 4"  # kept with the table: which form it has
SERVICES, OWN = "services", "own"
ALLOCATED, KEEPING, KEPT = "allocated", "keeping", "kept"
REFUSE, DISPATCH = "refuse", "dispatch"
VARIANTS = 8
MOST_KEPT = 1 << 18  # clients, of all frontends of a family
MASQUERADE = 0x00200000  # the packet's mark, from the choice to the way out
SYN, ACK = 0x02, 0x10
TCP, SCTP, _ICMP = 6, 132, {4: 1, 16: 58}
_FIRST = 8  # the first of 16 registers of 32 bits
_MARK, _L4PROTO = 3, 16  # keys of meta
_STATE, _STATUS, _DST_NAT, _INVALID = 0, 2, 0x20, 0x1
_PROTO_DST, _ORIGINAL = 12, {4: 20, 16: 22}  # keys of ct
_IPV4, _IPV6, _PROTO, _PORT, _NUMBER = 7, 8, 12, 13, 19  # nftables' types; _NUMBER is `mark`, 32 bits of the machine


def native(value: int) -> bytes:
    return value.to_bytes(4, sys.byteorder)


def _word(byte: int) -> bytes:
    """A byte of the packet as it lies in a register."""
    return bytes((byte, 0, 0, 0))


class Family(NamedTuple):
    """What differs between IPv4 and IPv6. at: offsets of source and destination in the header."""

    number: int
    width: int
    kind: int
    source: int
    destination: int

    @property
    def words(self) -> int:
        return self.width // 4


FAMILIES = {4: Family(m.IPV4, 4, _IPV4, 12, 16), 16: Family(m.IPV6, 16, _IPV6, 8, 24)}  # by the length of an address


def _type(*kinds: int) -> int:
    """Of a concatenation: six bits a part."""
    made = 0
    for kind in kinds:
        made = made << 6 | kind
    return made


def _endpoint(f: Family) -> tuple[int, int]:
    return _type(f.kind, _PORT), f.width + 4


def _add_numbered(batch: m.Batch, f: Family, name: str, data: tuple[int, int]) -> None:
    """A chain, and its map of what each frontend has by number."""
    key = _type(f.kind, _PROTO, _PORT, _NUMBER), f.width + 12
    m.new_set(batch, f.number, TABLE, name, m.SetShape(key, data))
    m.new_chain(batch, f.number, TABLE, name)


def shapes(f: Family) -> dict[str, m.SetShape]:
    """The maps that there always are, by name."""
    key = f.width + 8
    where = f.kind, _PROTO, _PORT
    return {
        SERVICES: m.SetShape((_type(*where), key), m.VERDICT),
        OWN: m.SetShape((_type(f.kind, f.kind), 2 * f.width)),
        ALLOCATED: m.SetShape((f.kind, f.width)),
        KEEPING: m.SetShape((_type(*where), key), m.VERDICT),
        KEPT: m.SetShape((_type(f.kind, *where), f.width + key), _endpoint(f), dynamic=MOST_KEPT),
    }


# --- what is there once -----------------------------------------------------------------------------------------------

BASE_CHAINS = {
    "arriving": ("nat", 0, -100),
    "sending": ("nat", 3, -100),
    "leaving": ("nat", 4, 100),
    "taking": ("nat", 1, 100),
    "passing": ("filter", 2, 0),
}
_WALLS = {"arriving": ("filter", 0, -100), "sending": ("filter", 3, -100)}


def add_base(batch: m.Batch, f: Family, rules: Rules, *, walls: bool = False) -> None:
    """The table with its maps and the chains at the hooks. walls: here is only refused and dropped, and others forward:
    then nothing is translated, no connection is tracked, and of TCP only segments that begin one are looked at."""
    m.new_table(batch, f.number, TABLE, WALLS_VERSION if walls else VERSION)
    for name, shape in shapes(f).items():
        m.new_set(batch, f.number, TABLE, name, shape)
    for chain in (REFUSE, DISPATCH):
        m.new_chain(batch, f.number, TABLE, chain)
    for chain, hook in (_WALLS if walls else BASE_CHAINS).items():
        m.new_chain(batch, f.number, TABLE, chain, hook)
    tcp = m.meta(_FIRST, _L4PROTO), m.compare(_FIRST, bytes((TCP,)))
    m.new_rule(batch, f.number, TABLE, REFUSE, (*tcp, m.reject(f.number, reset=True)))
    sctp = m.meta(_FIRST, _L4PROTO), m.compare(_FIRST, bytes((SCTP,)))
    if walls:  # the kernel itself refuses an association where nobody has the port
        m.new_rule(batch, f.number, TABLE, REFUSE, (*sctp, m.judge(m.ACCEPT)))
    else:
        # Who asks for an association ignores ICMP's port unreachable (RFC 9260, 10.1): "no" is an ABORT. The kernel
        # sends one where nobody has the port, as with 0; the address is the node's own, by a route.
        m.new_rule(batch, f.number, TABLE, REFUSE, (*sctp, m.load(_FIRST, bytes(4)), m.dnat_port(f.number, _FIRST)))
    m.new_rule(batch, f.number, TABLE, REFUSE, (m.reject(f.number, reset=False),))
    goes_on = m.payload(_FIRST, 2, 13, 1), m.bitwise(_FIRST, _word(SYN | ACK), bytes(4))
    later = *tcp, *goes_on, m.compare(_FIRST, bytes((SYN,)), equal=False), m.judge(m.ACCEPT)
    for chain in _WALLS:
        if walls:
            m.new_rule(batch, f.number, TABLE, chain, later)
        m.new_rule(batch, f.number, TABLE, chain, (*load_key(f, _FIRST), m.lookup(SERVICES, _FIRST, 0)))
        m.new_rule(batch, f.number, TABLE, chain, (m.judge(m.GOTO, DISPATCH),))
    if not walls:
        _add_way_out(batch, f)
    add_ranges(batch, f, rules)


def _add_way_out(batch: m.Batch, f: Family) -> None:
    """Who is masqueraded, what is noted of clients, and what is no connection's."""

    def rule(chain: str, *expressions: bytes) -> None:
        m.new_rule(batch, f.number, TABLE, chain, expressions)

    for chain in ("leaving", "taking"):  # by then the endpoint is in the packet
        rule(chain, *_asked_for(f, _FIRST), m.lookup(KEEPING, _FIRST, 0))
    bit, zero = native(MASQUERADE), bytes(4)
    marked = m.meta(_FIRST, _MARK), m.bitwise(_FIRST, bit, zero), m.compare(_FIRST, bit)
    keep = native(~MASQUERADE & 0xFFFFFFFF)
    unmark = m.meta(_FIRST, _MARK), m.bitwise(_FIRST, keep, zero), m.meta_set(_FIRST, _MARK)
    rule("leaving", *marked, *unmark, m.masquerade())
    dst_nat = native(_DST_NAT)
    translated = m.conntrack(_FIRST, _STATUS), m.bitwise(_FIRST, dst_nat, zero), m.compare(_FIRST, zero, equal=False)
    addresses = m.payload(_FIRST, 1, f.source, f.width), m.payload(_FIRST + f.words, 1, f.destination, f.width)
    rule("leaving", *translated, *addresses, m.lookup(OWN, _FIRST), m.masquerade())
    # A segment out of its window is not translated: its sender would get a reset for a connection that lives.
    invalid = native(_INVALID)
    faulty = m.conntrack(_FIRST, _STATE), m.bitwise(_FIRST, invalid, zero), m.compare(_FIRST, zero, equal=False)
    rule("passing", *faulty, m.meta(_FIRST, _L4PROTO), m.compare(_FIRST, bytes((TCP,))), m.judge(m.DROP))


def add_ranges(batch: m.Batch, f: Family, rules: Rules) -> None:
    """What of the ranges is no frontend: other ports of an address that a service has are refused, other addresses are
    met with silence, as kube-proxy has it. Fills the chain; what was in it has to be flushed before. Who has sockets
    for frontends needs that too: a program that listens on any address of the node would be met at a service's."""

    def rule(*expressions: bytes) -> None:
        m.new_rule(batch, f.number, TABLE, DISPATCH, expressions)

    rule(m.meta(_FIRST, _L4PROTO), m.compare(_FIRST, bytes((_ICMP[f.width],))), m.judge(m.ACCEPT))
    for address in rules.own:
        if len(address) == f.width:
            rule(*_holds(f, f.destination, (address, 8 * f.width)), m.judge(m.ACCEPT))
    rule(m.payload(_FIRST, 1, f.destination, f.width), m.lookup(ALLOCATED, _FIRST), m.judge(m.GOTO, REFUSE))
    for prefix in rules.ranges:
        if len(prefix[0]) == f.width:
            rule(*_holds(f, f.destination, prefix), m.judge(m.DROP))


def load_key(f: Family, register: int) -> tuple[bytes, ...]:
    """Destination, protocol and port, into registers from this one."""
    at = register + f.words
    return m.payload(register, 1, f.destination, f.width), m.meta(at, _L4PROTO), m.payload(at + 1, 2, 2, 2)


def _asked_for(f: Family, register: int) -> tuple[bytes, ...]:
    """What the client has sent to, before the translation: the same three."""
    at = register + f.words
    return m.conntrack(register, _ORIGINAL[f.width], 0), m.meta(at, _L4PROTO), m.conntrack(at + 1, _PROTO_DST, 0)


def _holds(f: Family, offset: int, prefix: Prefix) -> tuple[bytes, ...]:
    address, bits = prefix
    if not bits:
        return ()
    mask = ((1 << bits) - 1 << f.width * 8 - bits).to_bytes(f.width, "big")
    base = bytes(a & b for a, b in zip(address, mask, strict=True))
    return m.payload(_FIRST, 1, offset, f.width), m.bitwise(_FIRST, mask, bytes(f.width)), m.compare(_FIRST, base)


# --- chains that come with a use --------------------------------------------------------------------------------------


def has_map(chain: str) -> bool:
    """Whether the chain of this name has a map: all but Keep's."""
    return not chain.startswith("keep")


class Forward(NamedTuple):
    """A chain that gives connections to endpoints in turn: how many there are, the number of the choice, which of the
    VARIANTS; whether the source is replaced; whether a client keeps its endpoint."""

    endpoints: int
    choice: int
    variant: int
    masquerade: bool
    keeps: bool

    @property
    def name(self) -> str:
        words = "_masq" * self.masquerade + "_keep" * self.keeps
        return f"of{self.endpoints}_{self.choice}_{self.variant}{words}"

    def add(self, batch: m.Batch, f: Family) -> None:
        _add_numbered(batch, f, self.name, _endpoint(f))

        def rule(*expressions: bytes) -> None:
            m.new_rule(batch, f.number, TABLE, self.name, expressions)

        if self.masquerade:
            keep = native(~MASQUERADE & 0xFFFFFFFF)
            rule(m.meta(_FIRST, _MARK), m.bitwise(_FIRST, keep, native(MASQUERADE)), m.meta_set(_FIRST, _MARK))
        if self.keeps:
            client = m.payload(_FIRST, 1, f.source, f.width), *load_key(f, _FIRST + f.words)
            rule(*client, m.lookup(KEPT, _FIRST, _FIRST), m.dnat(f.number, _FIRST, _FIRST + f.words))
        at = _FIRST + f.words + 2
        pick = m.take_turns(at, self.endpoints, self.choice << 16), m.lookup(self.name, _FIRST, _FIRST)
        rule(*load_key(f, _FIRST), *pick, m.dnat(f.number, _FIRST, _FIRST + f.words))


class Keep(NamedTuple):
    """A chain that notes the endpoint of a client for some seconds, anew with each connection. A packet is in it once
    it has the endpoint's address. Where the map is full, nothing is noted."""

    seconds: int

    @property
    def name(self) -> str:
        return f"keep{self.seconds}"

    def add(self, batch: m.Batch, f: Family) -> None:
        m.new_chain(batch, f.number, TABLE, self.name)
        at = _FIRST + 2 * f.words + 2
        client = m.payload(_FIRST, 1, f.source, f.width), *_asked_for(f, _FIRST + f.words)
        endpoint = m.payload(at, 1, f.destination, f.width), m.payload(at + f.words, 2, 2, 2)
        note = m.dynset(KEPT, _FIRST, at, self.seconds * 1000)
        m.new_rule(batch, f.number, TABLE, self.name, (*client, *endpoint, note))


class BySource(NamedTuple):
    """A chain that finds the number of a choice by the client's address: prefixes of each choice but the last."""

    sources: tuple[tuple[Prefix, ...], ...]

    @property
    def name(self) -> str:
        return f"from_{blake2b(repr(self.sources).encode(), digest_size=12).hexdigest()}"

    def add(self, batch: m.Batch, f: Family) -> None:
        _add_numbered(batch, f, self.name, m.VERDICT)
        for choice, prefixes in enumerate((*self.sources, ((bytes(f.width), 0),))):
            for prefix in prefixes:
                if len(prefix[0]) != f.width:
                    continue
                found = (*load_key(f, _FIRST), m.take_turns(_FIRST + f.words + 2, 1, choice))
                rule = (*_holds(f, f.source, prefix), *found, m.lookup(self.name, _FIRST, 0))
                m.new_rule(batch, f.number, TABLE, self.name, rule)
