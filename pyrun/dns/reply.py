"""What another server's reply is worth: whether it belongs to the question, and what of it is kept and passed on. Pure.

Only what answers the question goes on: of a positive reply its answers, of a negative one its authority too, which has
the SOA by which it is kept (RFC 2308). Nobody reads authority or additional records of names that were not asked for,
and so nobody can be lied to by them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from . import wire
from .answer import Answer
from .respond import Sections, sections
from .wire import Record

POSITIVE_MOST_S, NEGATIVE_MOST_S, ALIAS_MOST_S = 3600, 1800, 30
BODY_MOST = 65_535 - 12 - 255 - 4 - 11  # bytes, as pyrun-dns has it: beside the head, the question and an OPT record
MATCH, CASE, PLAIN, OTHER = "match", "case", "plain", "other"


@dataclass(frozen=True, slots=True)
class Said:
    """rcode, and the records behind a question of the same name. ttl: seconds for which it may be kept."""

    rcode: int
    body: Sections
    ttl: int


NOTHING = Sections(b"", (0, 0, 0), (0, 0, 0))


def make_query(id: int, name: bytes, kind: int, edns: bool = True) -> bytes:
    """Recursion wanted, one question, and with EDNS room for 1232 bytes."""
    head = struct.pack("!6H", id, wire.RD, 1, 0, 0, edns)
    return head + name + struct.pack("!HH", kind, wire.IN) + (b"\0\0\x29\x04\xd0\0\0\0\0\0\0" if edns else b"")


def mixed(name: bytes, bits: int) -> bytes:
    """The name with the case of each letter by a bit: an echo of it proves that the question was seen (0x20)."""
    out = bytearray(name)
    for at, byte in enumerate(name):
        if 0x61 <= byte <= 0x7A:
            if bits & 1:
                out[at] = byte - 32
            bits >>= 1
    return bytes(out)


def belongs(data: bytes, query: bytes) -> str:
    """MATCH: a reply to this query; CASE: but with letters of another case; PLAIN: from a server that knows no EDNS and
    wants the query without (RFC 6891 §7), be its question in it or not; OTHER: something else, which is to be ignored
    while the wait goes on (CVE-2023-28452)."""
    end = len(query) - (11 if query[11] else 0)
    if len(data) == 12 and data[:2] == query[:2] and _knows_no_edns(data, query):
        return PLAIN
    if len(data) < end or data[:2] != query[:2] or not data[2] & 0x80 or data[2] & 0x78 or data[4:6] != b"\0\1":
        return OTHER
    if data[12:end].lower() != query[12:end].lower():
        return OTHER
    if _knows_no_edns(data, query):
        return PLAIN
    return MATCH if data[12:end] == query[12:end] else CASE


def _knows_no_edns(data: bytes, query: bytes) -> bool:
    """Whether it says of a query with an OPT record that it is none, and has no such record itself."""
    refuses = data[2] & 0xF8 == 0x80 and data[3] & 15 in (wire.FORMERR, wire.NOTIMP)
    return refuses and query[11] == 1 and data[6:12] == bytes(6)


def is_cut(data: bytes) -> bool:
    return bool(data[2] & 2)


def read_reply(data: bytes, name: bytes) -> Said:
    """What a reply that belongs to a question of this name says. WireError."""
    message = wire.decode(data)
    rcode = message.rcode
    if rcode not in (wire.NOERROR, wire.NXDOMAIN):
        return Said(rcode, NOTHING, 0)
    chain = _chain(wire.lower(name), message.answers)
    wanted = message.question[1] if message.question else 0
    if any(record.type == wanted for record in chain) and rcode == wire.NOERROR:
        ttl = min(POSITIVE_MOST_S, min(record.ttl for record in chain))
        return Said(rcode, _body(name, Answer(rcode, chain)), ttl)
    soa = _soa(message)
    ttl = min([NEGATIVE_MOST_S, *(record.ttl for record in (*chain, *soa))]) if soa else 0
    return Said(rcode, _body(name, Answer(rcode, chain, soa)), ttl)


def _body(name: bytes, found: Answer) -> Sections:
    """WireError for what is too long to be said: names in records' data came compressed, and go on as they are."""
    body = sections(name, found)
    if len(body.data) > BODY_MOST:
        raise wire.WireError(f"the records of a reply have {len(body.data)} bytes without compression")
    return body


def _plain(record: Record) -> Record:
    """Names in lower case: those that a server compressed have the letters of our question."""
    data = record.data
    if record.type in wire.NAMES_IN:
        begin, end = wire.NAMES_IN[record.type][0], len(data) - (20 if record.type == wire.SOA else 0)
        data = data[:begin] + wire.lower(data[begin:end]) + data[end:]
    return Record(wire.lower(record.name), record.type, record.ttl, data)


def _soa(message: wire.Message) -> tuple[Record, ...]:
    """The SOA by which a denial may be kept, with the time that is left of it as its TTL (RFC 2308 §3): who asks us
    counts on from there."""
    found = [_plain(record) for record in message.authority if record.type == wire.SOA][:1]
    return tuple(replace(soa, ttl=min(soa.ttl, struct.unpack("!I", soa.data[-4:])[0])) for soa in found)


def _chain(name: bytes, answers: tuple[Record, ...]) -> tuple[Record, ...]:
    """The records of the name, and of those to which its aliases lead; others have no place in an answer."""
    of: dict[bytes, list[Record]] = {}
    for record in map(_plain, answers):
        of.setdefault(record.name, []).append(record)
    names, kept = [name], list[Record]()
    for one in names:  # grows
        records = of.pop(one, [])
        kept += records
        names += [record.data for record in records if record.type == wire.CNAME]
    return tuple(kept)


def behind_alias(name: bytes, aliases: tuple[Record, ...], target: bytes, data: bytes) -> Said:
    """The answer for a name whose aliases lead to `target`, for which this is another server's reply. WireError."""
    message = wire.decode(data)
    said = read_reply(data, target)
    if said.rcode not in (wire.NOERROR, wire.NXDOMAIN):
        return said
    ttl = min(said.ttl, ALIAS_MOST_S)
    own = tuple(Record(record.name, record.type, ttl, record.data) for record in aliases)
    chain = _chain(wire.lower(target), message.answers)
    positive = said.body.counts[1] == 0
    soa = () if positive else _soa(message)
    return Said(said.rcode, _body(name, Answer(said.rcode, own + chain, soa)), ttl)
