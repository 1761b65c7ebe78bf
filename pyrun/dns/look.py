"""What a running DNS would answer, and where it has it from: asked of pyrun-dns, told with the objects. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import PyrunError
from ..kube.addresses import address_text
from . import wire
from .answer import AUTOPATH, NO_ANY
from .explain import record_json, record_line
from .plan import MAPPED
from .responder import CACHE_HAS, NOBODY, OLD, OTHERS, Looked
from .table import Table
from .upstream import Upstream
from .wire import Record

SOCKET = "query.sock"  # in the state directory
LOOPBACK = b"\0" * 10 + b"\xff\xff\x7f\0\0\1"
FROM = {OTHERS: "others", CACHE_HAS: "cache", OLD: "old", NOBODY: "nobody"}
LAST_TIME = "the table of last time"
ANSWER = ("answers", "authority", "additional")


def target_of(name: bytes, kind: int, client: bytes | None) -> str:
    """The path by which a daemon is asked on its socket, for question_of(). client: 16 bytes; None: this host."""
    return f"/query?name={name.hex()}&type={kind}&client={(client or LOOPBACK).hex()}"


def question_of(words: Mapping[str, list[str]]) -> tuple[bytes, int, bytes]:
    """The name, the type, and who would ask. PyrunError."""
    try:
        name, kind, client = (words[key][0] for key in ("name", "type", "client"))
        question = bytes.fromhex(name), int(kind), bytes.fromhex(client)
        if (
            wire.read_name(question[0], 0)[1] != len(question[0])
            or len(question[2]) != 16
            or not 0 < question[1] < 65536
        ):
            raise ValueError
    except (LookupError, ValueError, wire.WireError):
        raise PyrunError("this is no question of a `pyrun dns query` of this version") from None
    return question


def look_json(
    looked: Looked, name: bytes, kind: int, client: bytes, table: Table | None, servers: Sequence[Upstream]
) -> dict[str, Any]:
    """table: the one that is answered from; None where it is that of last time. servers: whom a question for this
    look's name goes to, in order."""
    said = wire.decode(looked.reply) if looked.reply else wire.Message(0, 0)
    return {
        "name": wire.text_of(name),
        "type": wire.TYPE_NAMES.get(kind, f"TYPE{kind}"),
        "client": address_text(client.removeprefix(MAPPED) if client.startswith(MAPPED) else client),
        "from": FROM.get(looked.origin, "table"),
        "generation": looked.generation,
        "rcode": wire.RCODES[said.rcode] if looked.reply else None,
        "asked_for": wire.text_of(looked.name) if looked.name else None,
        "left_s": looked.left_s,
        "servers": [{"address": str(one), "failures": one.failures} for one in servers] if looked.name else [],
        "answers": [record_json(record, origin_of(record, name, looked, table)) for record in said.answers],
        "authority": [record_json(record) for record in said.authority],
        "additional": [record_json(record) for record in said.additional],
    }


def origin_of(record: Record, name: bytes, looked: Looked, table: Table | None) -> str:
    """The object of this record, or whose answer it is of."""
    if table is None:
        return "the cache" if looked.name == record.name else LAST_TIME
    node = table.nodes.get(wire.lower(record.name))
    for entry in node.records.get(record.type, ()) if node else ():
        if entry.data == record.data:
            return str(entry.origin)
    if record.type == wire.HINFO and not looked.name:
        return str(NO_ANY)
    if (
        record.type == wire.CNAME
        and not node
        and wire.lower(record.name) == wire.lower(name)
        and looked.name != wire.lower(name)
    ):
        return str(AUTOPATH)
    return "another server"


def is_answered(found: dict[str, Any]) -> bool:
    """Whether who asks has an answer, be it that there is no such name, or will have one by another server."""
    return found["rcode"] not in ("SERVFAIL", "REFUSED") if found["rcode"] else bool(found["servers"])


def look_text(found: dict[str, Any]) -> Iterator[str]:
    """look_json()'s value as `pyrun dns query` shows one."""
    yield f"; {_outcome(found)}"
    lines = [(record_line(one), one.get("from")) for one in found["answers"]]
    width = max([len(line) for line, _ in lines], default=0)
    for line, origin in lines:
        yield f"{line:{width}}  ; {origin}"
    for title in ANSWER[1:]:
        if found[title]:
            yield f"; {title}"
            yield from map(record_line, found[title])


def _outcome(found: dict[str, Any]) -> str:
    match found["from"]:
        case "nobody":
            return f"no reply: {found['client']} is none of those who are answered (--allow of `pyrun dns run`)"
        case "others":
            return _of_others(found)
        case "cache":
            where = f"another server's answer, kept for {found['left_s']} seconds more"
        case "old":
            where = f"an answer of old, as no other server has a new one; good for {found['left_s']} seconds more"
        case _:
            where = f"table {found['generation']}"
    said = found["rcode"]
    wanted = [one for one in found["answers"] if one["type"] != "CNAME" or found["type"] in ("CNAME", "ANY")]
    if said == "NOERROR" and not wanted:
        said = "NODATA"
    return f"{said}: {where}"


def _of_others(found: dict[str, Any]) -> str:
    name, servers = found["asked_for"], found["servers"]
    old = f"; where nobody has one, an answer of old is good for {found['left_s']} seconds" if found["left_s"] else ""
    if not servers:
        return f"SERVFAIL: there is no other server to ask for {name}"
    words = [
        one["address"] + (f" (which has failed {one['failures']} times in a row)" if one["failures"] else "")
        for one in servers
    ]
    return f"not ours: {name} is asked of {', then '.join(words)}{old}"
