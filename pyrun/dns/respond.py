"""A whole reply to a query's bytes, from the table: what pyrun-dns sends, said in Python. Pure.

It serves `pyrun dns query`, and the tests hold the C program against it. What the C program has beside it: turns of
addresses, other servers' answers, and limits by the asker's address.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from . import wire
from .answer import Answer, answer_to
from .table import Table

UDP_LEAST, UDP_MOST, TCP_MOST = 512, 1232, 65535  # RFC 1035 §4.2.1; DNS flag day 2020
UPDATE = 5


@dataclass(frozen=True, slots=True)
class Query:
    """The parts of a query that a reply needs. name: as it came, with its case. payload: None without EDNS. edns:
    flags of the OPT record that come back."""

    id: int
    flags: int
    name: bytes = b""
    kind: int = 0
    cls: int = 0
    payload: int | None = None
    version: int = 0
    edns: int = 0


@dataclass(frozen=True, slots=True)
class Sections:
    """Records as they stand behind a question, compressed by it; the numbers of records are of answers, authority and
    additional; ends says where each section ends."""

    data: bytes
    counts: tuple[int, int, int]
    ends: tuple[int, int, int]


def read_query(data: bytes) -> Query | int | None:
    """The query; the rcode with which to refuse it; None for what gets no reply at all."""
    if len(data) < 12:
        return None
    id, flags, questions, answers, authority, additional = struct.unpack_from("!6H", data)
    if flags & wire.QR:
        return None
    if opcode := flags >> 11 & 15:
        return wire.REFUSED if opcode == UPDATE else wire.NOTIMP
    if questions != 1 or answers:
        return wire.FORMERR
    try:
        name, at = wire.read_name(data, 12)
        if at - 12 != len(name) or at + 4 > len(data):
            return wire.FORMERR  # compressed, though nothing stands before it
        kind, cls = struct.unpack_from("!HH", data, at)
        if authority:  # of a zone that somebody has already (RFC 1995)
            return wire.REFUSED if kind == wire.IXFR else wire.FORMERR
        payload, version, edns, at = None, 0, 0, at + 4
        for _ in range(additional):
            start = at
            record, size, at = wire.read_record(data, at)
            if record.type == wire.OPT:
                if payload is not None or record.name != wire.ROOT:
                    return wire.FORMERR
                payload, version = size, data[start + 6]
                edns = struct.unpack_from("!H", data, start + 7)[0] & wire.DO  # RFC 3225 §3
    except wire.WireError:
        return wire.FORMERR
    return Query(id, flags, name, kind, cls, payload, version, edns)


def sections(name: bytes, found: Answer) -> Sections:
    """The records of an answer to a question of this name."""
    places: dict[bytes, int] = {}
    wire.encode_name(wire.lower(name), places, 12)
    out, ends = bytearray(), []
    for section in (found.answers, found.authority, found.additional):
        for record in section:
            out += wire.encode_record(record, places, 12 + len(name) + 4 + len(out))
        ends.append(len(out))
    counts = (len(found.answers), len(found.authority), len(found.additional))
    return Sections(bytes(out), counts, (ends[0], ends[1], ends[2]))


def respond(
    table: Table, data: bytes, *, tcp: bool = False, recursion: bool = True, client: bytes | None = None
) -> bytes | bytearray | None:
    """The reply to who asks from this address of 16 bytes; None for no reply, and an empty one where another server has
    to be asked."""
    query = read_query(data)
    if query is None:
        return None
    if isinstance(query, int):
        flags = struct.unpack_from("!H", data, 2)[0]
        return data[:2] + struct.pack("!5H", wire.QR | flags & 0x7900 | query, 0, 0, 0, 0)
    if query.payload is not None and query.version:
        return _reply(query, wire.BADVERS, 0, Sections(b"", (0, 0, 0), (0, 0, 0)), TCP_MOST)
    refusal = refused(query)
    found = Answer(refusal) if refusal else answer_to(table, query.name, query.kind, client)
    if found.forward is not None:
        return b""
    flags = (wire.AA if not refusal and (found.zone or _has(table, query.name)) else 0) | (wire.RA if recursion else 0)
    limit = TCP_MOST if tcp else min(max(query.payload or 0, UDP_LEAST), UDP_MOST)
    return _reply(query, found.rcode, flags, sections(query.name, found), limit)


def refused(query: Query) -> int:
    """The rcode of a question that nobody is asked: another class than IN, transfers and other meta types; or 0."""
    if query.kind in (0, wire.OPT):
        return wire.FORMERR
    if query.cls != wire.IN or 128 <= query.kind < wire.ANY:
        return wire.REFUSED
    return 0


def _has(table: Table, name: bytes) -> bool:
    return wire.lower(name) in table.nodes


def _reply(query: Query, rcode: int, flags: int, body: Sections, limit: int) -> bytes:
    question = query.name + struct.pack("!HH", query.kind, query.cls)
    opt = b""
    if query.payload is not None:
        opt = wire.ROOT + struct.pack("!HHBBHH", wire.OPT, UDP_MOST, rcode >> 4, 0, query.edns, 0)
    data, counts = body.data, list(body.counts)
    room = limit - 12 - len(question) - len(opt)
    if len(data) > room and counts[2]:
        data, counts[2] = data[: body.ends[1]], 0  # nobody misses what is additional (RFC 2181 §9)
    if len(data) > room:
        flags |= wire.TC
        data, counts[0] = _fitting(12 + len(question), data[: body.ends[0]], room)
        counts[1] = 0
    head = struct.pack(
        "!6H",
        query.id,
        wire.QR | query.flags & 0x0110 | flags | rcode & 15,  # RD and CD come back
        1,
        counts[0],
        counts[1],
        counts[2] + (query.payload is not None),
    )
    return head + question + data + opt


def _fitting(before: int, data: bytes, room: int) -> tuple[bytes, int]:
    """As many whole records as there is room for: some resolvers make do with them."""
    at = count = 0
    message = b"\0" * before + data
    while at < len(data):
        end = before + at
        while message[end] and message[end] < 0xC0:
            end += 1 + message[end]
        end += 2 if message[end] else 1
        end += 10 + struct.unpack_from("!H", message, end + 8)[0]
        if end - before > room:
            break
        at, count = end - before, count + 1
    return data[:at], count
