"""What the table answers, and why, in words. Pure."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from typing import Any

from . import wire
from .answer import Answer, answer_to
from .table import Table
from .wire import Record


def data_text(kind: int, data: bytes) -> str:
    """A record's data in presentation form; RFC 3597's for types that are not ours."""
    if kind in (wire.A, wire.AAAA):
        return str(ipaddress.ip_address(data))
    if kind in (wire.CNAME, wire.NS, wire.PTR):
        return wire.text_of(data)
    if kind == wire.SRV:
        return "{} {} {} ".format(*struct.unpack_from("!3H", data)) + wire.text_of(data[6:])
    if kind == wire.SOA:
        mname, at = wire.read_name(data, 0)
        rname, at = wire.read_name(data, at)
        numbers = " ".join(map(str, struct.unpack_from("!5I", data, at)))
        return f"{wire.text_of(mname)} {wire.text_of(rname)} {numbers}"
    if kind in (wire.TXT, wire.HINFO):
        parts, at = [], 0
        while at < len(data):
            text = data[at + 1 : at + 1 + data[at]].decode("ascii", "backslashreplace")
            parts.append('"' + text.replace('"', '\\"') + '"')
            at += 1 + data[at]
        return " ".join(parts)
    return f"\\# {len(data)} {data.hex()}"


def record_text(record: Record) -> str:
    return record_line(record_json(record))


def record_json(record: Record, origin: str | None = None) -> dict[str, Any]:
    value: dict[str, Any] = {"name": wire.text_of(record.name), "ttl": record.ttl}
    value["type"] = wire.TYPE_NAMES.get(record.type, f"TYPE{record.type}")
    value["data"] = data_text(record.type, record.data)
    return value | ({"from": origin} if origin else {})


def record_line(value: dict[str, Any]) -> str:
    """record_json()'s value as record_text() has it."""
    return f"{value['name']} {value['ttl']} IN {value['type']} {value['data']}"


def query_text(table: Table, name: bytes, kind: int, client: bytes | None = None) -> Iterator[str]:
    """The answer as dig shows one, each record with the object that it comes from. client: who asks, 16 bytes."""
    found = answer_to(table, name, kind, client)
    yield f"; {outcome(found)}"
    width = max([len(record_text(record)) for record in found.answers], default=0)
    for record, origin in zip(found.answers, found.origins, strict=True):
        yield f"{record_text(record):{width}}  ; {origin}"
    for title, records in (("authority", found.authority), ("additional", found.additional)):
        if records:
            yield f"; {title}"
            yield from map(record_text, records)


def outcome(found: Answer) -> str:
    if found.forward is not None:
        return f"not ours: another server is asked for {wire.text_of(found.forward)}"
    if found.rcode == wire.SERVFAIL:
        return "SERVFAIL: aliases lead in a circle"
    if found.rcode == wire.NXDOMAIN:
        return "NXDOMAIN: there is no such name"
    kinds = {record.type for record in found.answers} - {wire.CNAME}
    return "NOERROR" if kinds or not found.authority else "NODATA: the name has no record of this type"


def query_json(table: Table, name: bytes, kind: int, client: bytes | None = None) -> dict[str, Any]:
    found = answer_to(table, name, kind, client)
    return {
        "name": wire.text_of(name),
        "type": wire.TYPE_NAMES.get(kind, f"TYPE{kind}"),
        "rcode": wire.RCODES[found.rcode],
        "forward": wire.text_of(found.forward) if found.forward is not None else None,
        "answers": [
            record_json(record, str(origin)) for record, origin in zip(found.answers, found.origins, strict=True)
        ],
        "authority": [record_json(record) for record in found.authority],
        "additional": [record_json(record) for record in found.additional],
    }


def table_rows(table: Table, below: bytes = wire.ROOT) -> Iterator[tuple[str, str, str, str]]:
    """(name, type, data, origin) of each record at and below a name. By the names' labels from the root on, so that
    what belongs together stands together."""
    for name in sorted(table.nodes, key=lambda n: wire.labels_of(n)[::-1]):
        if not wire.is_below(name, wire.lower(below)):
            continue
        for kind, entries in table.nodes[name].records.items():
            for entry in entries:
                kind_text = wire.TYPE_NAMES[kind]
                yield wire.text_of(name), kind_text, data_text(kind, entry.data), str(entry.origin)
