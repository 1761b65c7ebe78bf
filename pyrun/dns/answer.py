"""What the table answers to a question. Pure; the C program gives the same answers, compiled from here (encode.py)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from . import wire
from .objects import Origin, Where
from .table import Entry, Node, Table, Zone
from .wire import Record

CHAIN_MOST = 8  # aliases, one leading to another
NO_ANY = Where(Origin("RFC 8482"))
AUTOPATH = Where(Origin("autopath"))
HINFO_DATA = b"\x07RFC8482\x00"


@dataclass(frozen=True, slots=True)
class Answer:
    """forward: the name for which another server has to be asked, its answer following `answers`; rcode is then what
    is known so far. origins: of the answers, one each. zone: the one that answered, None for none."""

    rcode: int
    answers: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    origins: tuple[Where, ...] = ()
    forward: bytes | None = None
    zone: Zone | None = None


def zone_of(table: Table, name: bytes) -> Zone | None:
    """The zone that this name is in, the longest one."""
    return next((zone for zone in table.zones if wire.is_below(name, zone.name)), None)


def answer(table: Table, name: bytes, kind: int) -> Answer:
    """The answer to one question of class IN, kind being no meta type but ANY. name: in any case."""
    name = wire.lower(name)
    zone = zone_of(table, name)
    if kind == wire.ANY:
        return Answer(wire.NOERROR, (Record(name, wire.HINFO, table.ttl, HINFO_DATA),), origins=(NO_ANY,), zone=zone)
    records: list[Record] = []
    origins: list[Where] = []
    seen = {name}
    while True:
        node = table.nodes.get(name)
        if node is None:
            at = zone_of(table, name)
            if at is None:
                return Answer(wire.NOERROR, tuple(records), origins=tuple(origins), forward=name, zone=zone)
            return _negative(table, wire.NXDOMAIN, records, origins, at)
        wanted = node.records.get(kind, ())
        if wanted or node.target is None or kind == wire.CNAME:
            break
        records += [Record(name, wire.CNAME, table.ttl, entry.data) for entry in node.records[wire.CNAME]]
        origins += [entry.origin for entry in node.records[wire.CNAME]]
        name = node.target
        if name in seen or len(seen) > CHAIN_MOST:
            return Answer(wire.SERVFAIL, tuple(records), origins=tuple(origins), zone=zone)
        seen.add(name)
    if not wanted:
        return _negative(table, wire.NOERROR, records, origins, zone_of(table, name))
    records += [Record(name, kind, table.ttl, entry.data) for entry in wanted]
    origins += [entry.origin for entry in wanted]
    return Answer(wire.NOERROR, tuple(records), (), _additional(table, kind, wanted), tuple(origins), zone=zone)


def answer_to(table: Table, name: bytes, kind: int, client: bytes | None) -> Answer:
    """The answer to who asks from this address of 16 bytes: where its search path begins with the name, and that is not
    there, the first one that is; its rcode is not known yet where other servers are asked for one."""
    name = wire.lower(name)
    found = answer(table, name, kind)
    path = table.clients.get(client) if client else None
    if path is None or found.rcode != wire.NXDOMAIN or found.answers:
        return found
    for candidate in path.names(name):
        tried = answer(table, candidate, kind)
        if tried.rcode == wire.NXDOMAIN:
            continue
        if tried.rcode != wire.NOERROR:
            return Answer(tried.rcode, zone=found.zone)
        alias = Record(name, wire.CNAME, table.ttl, candidate)
        return replace(tried, answers=(alias, *tried.answers), origins=(AUTOPATH, *tried.origins), zone=found.zone)
    return found


def _negative(table: Table, rcode: int, records: list[Record], origins: list[Where], zone: Zone | None) -> Answer:
    """With the zone's SOA, by which it may be kept (RFC 2308 §3)."""
    soa = (Record(zone.name, wire.SOA, table.ttl, zone.soa),) if zone else ()
    return Answer(rcode, tuple(records), soa, origins=tuple(origins), zone=zone)


def _additional(table: Table, kind: int, entries: tuple[Entry, ...]) -> tuple[Record, ...]:
    """The addresses of what SRV and NS records lead to."""
    if kind not in (wire.SRV, wire.NS):
        return ()
    found: dict[tuple[bytes, bytes], Record] = {}
    for entry in entries:
        target = entry.data[6:] if kind == wire.SRV else entry.data
        node = table.nodes.get(target) or Node({})
        for address_kind in (wire.A, wire.AAAA):
            for address in node.records.get(address_kind, ()):
                found[target, address.data] = Record(target, address_kind, table.ttl, address.data)
    return tuple(found.values())
