"""The table as bytes for pyrun-dns: every answer ready-made, to be copied behind the question. Pure.

Little-endian. A head of 32 bytes: magic, version, generation (8 bytes), size of all, zones, nodes, TTL. Then zones, the
longest name first, then nodes, each padded to 4 bytes. Where search paths are walked (autopath) the version is 2:
numbers of paths and clients follow the head, and these follow the nodes.

    zone: size (4), bytes of the name (1), 0 (1), bytes of the SOA record (2); the name; the record, whose owner is a
        compression pointer that the program sets
    node: size (4), bytes of the name (1), its zone's number from 1, or 0 (1), flags (1), answers (1); the name;
        24 bytes for each answer; their records
    path: size (4), how many names (1), 0 (3); the suffix and what is tried then, padded
    client: its address (16), its path's number from 0 (4); by their addresses
    answer: type, rcode, how many answers, authority and additional records there are (3 × 2), bytes before the records
        that take turns, bytes of one of these, their number, bytes of each section (3 × 2), 0: 2 bytes each

The type 0 stands for every type that has no answer of its own. Compression pointers lead into the question, which
stands at offset 12 of a message. The order of nodes is nobody's business: the program has an index of its own.
"""

from __future__ import annotations

import struct

from ..errors import PyrunError
from . import wire
from .answer import Answer, answer
from .objects import Fault
from .respond import Sections, sections
from .table import Path, Table

MAGIC, VERSION, WITH_PATHS = 0x544E4450, 1, 2
HEAD, ZONE, NODE, ANSWER = (
    struct.Struct("<IIQIIII"),
    struct.Struct("<IBBH"),
    struct.Struct("<IBBBB"),
    struct.Struct("<12H"),
)
PATH, CLIENT = struct.Struct("<IB3x"), struct.Struct("<16sI")
FORWARD = 1
OTHER_TYPE = 0xFF00  # one for private use (RFC 6895), which stands for those without an answer of their own
DATA_MOST = 65535 - 12 - 255 - 4 - 11  # what a message over TCP has room for behind a question
ZONES_MOST = 255


def encode_table(table: Table, generation: int, faults: list[Fault] | None = None) -> bytes:
    """The table's bytes. An answer too large for any message ends early, and faults gets why. PyrunError for too
    many zones."""
    if len(table.zones) > ZONES_MOST:
        raise PyrunError(
            f"the ranges of Services have {len(table.zones) - 1} reverse zones, and {ZONES_MOST - 1} are served",
            hint="give fewer --service-cidr, or such as end at a whole byte, as /8 and /16 do",
        )
    numbers = {zone.name: number for number, zone in enumerate(table.zones, 1)}
    parts = [_zone(zone.name, zone.soa, table.ttl) for zone in table.zones]
    found = faults if faults is not None else []
    parts += [_node(table, name, numbers, found) for name in table.nodes]
    counts = b""
    if table.clients:
        paths = {path: number for number, path in enumerate(dict.fromkeys(table.clients.values()))}
        counts = struct.pack("<II", len(paths), len(table.clients))
        parts += [_path(path) for path in paths]
        parts += [CLIENT.pack(address, paths[path]) for address, path in sorted(table.clients.items(), key=_address)]
    size = HEAD.size + len(counts) + sum(map(len, parts))
    version = WITH_PATHS if counts else VERSION
    head = HEAD.pack(MAGIC, version, generation, size, len(table.zones), len(table.nodes), table.ttl)
    return b"".join([head, counts, *parts])


def _address(client: tuple[bytes, Path]) -> bytes:
    return client[0]


def _path(path: Path) -> bytes:
    body = _padded(path.suffix + b"".join(path.then))
    return PATH.pack(PATH.size + len(body), 1 + len(path.then)) + body


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _zone(name: bytes, soa: bytes, ttl: int) -> bytes:
    record = struct.pack("!HHHIH", 0xC000, wire.SOA, wire.IN, ttl, len(soa)) + soa
    body = _padded(name) + _padded(record)
    return ZONE.pack(ZONE.size + len(body), len(name), 0, len(record)) + body


def _node(table: Table, name: bytes, zones: dict[bytes, int], faults: list[Fault]) -> bytes:
    node = table.nodes[name]
    answers: dict[int, Answer] = {}
    flags = 0
    kinds = list(node.records)
    if node.target is not None:
        other = answer(table, name, OTHER_TYPE)
        if other.forward is not None:
            flags = FORWARD
        else:
            kinds += [kind for kind in _kinds_at_the_end(table, node.target) if kind not in kinds]
            answers[0] = other
    for kind in kinds:
        answers[kind] = answer(table, name, kind)
    heads, bodies = [], []
    for kind in sorted(answers, reverse=True):  # type 0 last: it is taken when no other was
        body = _fitting(name, sections(name, answers[kind]), answers[kind], faults)
        heads.append(_answer(kind, answers[kind].rcode, body))
        bodies.append(body.data)
    number = next((zones[zone] for zone in (name, *wire.parents(name)) if zone in zones), 0)
    body_bytes = _padded(name) + b"".join(heads) + _padded(b"".join(bodies))
    return NODE.pack(NODE.size + len(body_bytes), len(name), number, flags, len(answers)) + body_bytes


def _kinds_at_the_end(table: Table, name: bytes) -> list[int]:
    """Which types the last name of a chain of aliases has."""
    for _ in range(16):
        node = table.nodes.get(name)
        if node is None:
            return []
        if node.target is None:
            return list(node.records)
        name = node.target
    return []


def _answer(kind: int, rcode: int, body: Sections) -> bytes:
    """The head of an answer. Addresses of one name take turns: they all have the same size, and stand last."""
    lead, stride, turn = turns(body)
    lengths = (body.ends[0], body.ends[1] - body.ends[0], body.ends[2] - body.ends[1])
    return ANSWER.pack(kind, rcode, *body.counts, lead, stride, turn, *lengths, 0)


def turns(body: Sections) -> tuple[int, int, int]:
    """(bytes before the records that take turns, bytes of each, their number); zeros when none do."""
    at, starts, kinds = 0, [], []
    data = body.data
    while at < body.ends[0]:
        starts.append(at)
        while data[at] and data[at] < 0xC0:
            at += 1 + data[at]
        at += 2 if data[at] else 1
        kinds.append(struct.unpack_from("!H", data, at)[0])
        at += 10 + struct.unpack_from("!H", data, at + 8)[0]
    first = next((i for i, kind in enumerate(kinds) if kind in (wire.A, wire.AAAA)), len(kinds))
    number = len(kinds) - first
    if number < 2 or set(kinds[first:]) - {kinds[first]}:
        return 0, 0, 0
    lead = starts[first]
    stride = (body.ends[0] - lead) // number
    if [lead + i * stride for i in range(number)] != starts[first:]:
        return 0, 0, 0
    return lead, stride, number


def _fitting(name: bytes, body: Sections, found: Answer, faults: list[Fault]) -> Sections:
    if len(body.data) <= DATA_MOST:
        return body
    bare = sections(name, Answer(found.rcode, found.answers, found.authority))
    most = len(found.answers)
    while len(bare.data) > DATA_MOST:
        most = most * 9 // 10
        bare = sections(name, Answer(found.rcode, found.answers[:most], found.authority))
    if most < len(found.answers):
        faults.append(Fault(found.origins[most], f"{wire.text_of(name)} has more records than a message has room for"))
    return bare
