"""DNS messages as bytes (RFC 1035 §4, EDNS RFC 6891), both ways. Pure.

A name here is its wire form without compression: labels, each with its length in front, and a zero at the end; so the
root is one zero byte. Text is presentation form, absolute, with \\DDD and \\X escapes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

A, NS, CNAME, SOA, PTR, HINFO, MX, TXT = 1, 2, 5, 6, 12, 13, 15, 16
AAAA, SRV, OPT, IXFR, AXFR, ANY = 28, 33, 41, 251, 252, 255
TYPES = {"A": A, "NS": NS, "CNAME": CNAME, "SOA": SOA, "PTR": PTR, "HINFO": HINFO, "MX": MX, "TXT": TXT}
TYPES |= {"AAAA": AAAA, "SRV": SRV, "AXFR": AXFR, "ANY": ANY}
TYPE_NAMES = {number: name for name, number in TYPES.items()}
IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)
BADVERS = 16
RCODES = ("NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED")
QR, AA, TC, RD, RA = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080
DO = 0x8000  # in an OPT record
ROOT = b"\0"
NAME_MOST, LABEL_MOST, POINTERS_MOST = 255, 63, 64


class WireError(ValueError):
    """Bytes or text that are no DNS message or name; the text says why."""


@dataclass(frozen=True, slots=True)
class Record:
    """One resource record of class IN. data: without compression."""

    name: bytes
    type: int
    ttl: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Message:
    """A message with one question, or none. flags: the header's second word, rcode and opcode too. payload: the UDP
    size of its OPT record, None where it has none. extended: what that record says of the rcode beyond 15. The OPT
    record is not among additional."""

    id: int
    flags: int
    question: tuple[bytes, int, int] | None = None
    answers: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    payload: int | None = None
    extended: int = 0

    @property
    def rcode(self) -> int:
        return self.flags & 15 | self.extended << 4


def label_of(text: str) -> bytes:
    """WireError for what is in JSON, and is no text: half of a surrogate pair."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise WireError(f"{text!r} is no text") from None


def name_of(text: str) -> bytes:
    """The wire form of a name in presentation form; a dot at its end changes nothing. WireError."""
    if text in ("", "."):
        return ROOT
    labels, label, at = [], bytearray(), 0
    raw = label_of(text)
    while at < len(raw):
        byte = raw[at]
        at += 1
        if byte == 0x2E:
            labels.append(bytes(label))
            label.clear()
            continue
        if byte == 0x5C:
            if raw[at : at + 3].isdigit() and len(raw[at : at + 3]) == 3:
                byte, at = int(raw[at : at + 3]), at + 3
            elif at < len(raw):
                byte, at = raw[at], at + 1
            if byte > 255:
                raise WireError(f"{text}: \\{byte} is no byte")
        label.append(byte)
    if label:
        labels.append(bytes(label))
    return join(labels, text)


def join(labels: list[bytes], text: str = "a name") -> bytes:
    """The name of these labels, first to last, under the root. WireError."""
    if any(not label or len(label) > LABEL_MOST for label in labels):
        raise WireError(f"{text}: a label of a DNS name has 1 to {LABEL_MOST} bytes")
    name = b"".join([bytes((len(label),)) + label for label in labels]) + ROOT
    if len(name) > NAME_MOST:
        raise WireError(f"{text}: a DNS name has at most {NAME_MOST} bytes")
    return name


def labels_of(name: bytes) -> list[bytes]:
    """The labels of a name, without the root's."""
    labels, at = [], 0
    while name[at]:
        labels.append(name[at + 1 : at + 1 + name[at]])
        at += 1 + name[at]
    return labels


def text_of(name: bytes) -> str:
    """The name in presentation form, with the dot at its end."""
    return "".join(["".join(map(_shown, label)) + "." for label in labels_of(name)]) or "."


def _shown(byte: int) -> str:
    if byte in b'."\\();@$':
        return "\\" + chr(byte)
    return chr(byte) if 0x21 <= byte <= 0x7E else f"\\{byte:03d}"


def lower(name: bytes) -> bytes:
    """The name as it is looked up: bytes.lower() leaves lengths alone, since a label has at most 63 bytes."""
    return name.lower()


def parents(name: bytes) -> list[bytes]:
    """The names above it, nearest first, the root last."""
    found = []
    while name[0]:
        name = name[1 + name[0] :]
        found.append(name)
    return found


def is_below(name: bytes, zone: bytes) -> bool:
    """Whether the name is the zone's or below it, both in lower case."""
    return name == zone or (name.endswith(zone) and zone in parents(name))


def reverse_name(address: bytes) -> bytes:
    """The name under in-addr.arpa or ip6.arpa of 4 or 16 bytes (RFC 1035 §3.5, RFC 3596 §2.5)."""
    if len(address) == 4:
        return join([str(byte).encode() for byte in reversed(address)] + [b"in-addr", b"arpa"])
    return join([digit.encode() for digit in reversed(address.hex())] + [b"ip6", b"arpa"])


def reverse_zone(address: bytes, bits: int) -> bytes:
    """The reverse zone that just holds the prefix: at a whole byte for IPv4, half a byte for IPv6, rounded down, so it
    can be wider than the prefix."""
    unit, labels = (8, 4) if len(address) == 4 else (4, 32)
    name = reverse_name(address)
    for _ in range(labels - bits // unit):
        name = name[1 + name[0] :]
    return name


def reverse_zones(address: bytes, bits: int) -> list[bytes]:
    """The reverse zones that hold the prefix and nothing beside it: one where it ends at a whole byte of IPv4 or half a
    byte of IPv6, else up to 128, or 8."""
    size, unit = 8 * len(address), 8 if len(address) == 4 else 4
    whole = -(-bits // unit) * unit
    first = int.from_bytes(address, "big") >> size - bits << size - bits
    numbers = (first + (number << size - whole) for number in range(1 << whole - bits))
    return [reverse_zone(number.to_bytes(len(address), "big"), whole) for number in numbers]


def soa_data(mname: bytes, rname: bytes, serial: int, minimum: int) -> bytes:
    return mname + rname + struct.pack("!5I", serial & 0xFFFFFFFF, 7200, 1800, 86400, minimum)


def txt_data(text: bytes) -> bytes:
    return b"".join([bytes((len(text[at : at + 255]),)) + text[at : at + 255] for at in range(0, len(text), 255)])


def encode_record(record: Record, places: dict[bytes, int], at: int) -> bytes:
    """The record's bytes for offset `at` of a message. The owner is compressed by `places` (name → offset), which gets
    what is new; data is as it is."""
    owner = encode_name(record.name, places, at)
    return owner + struct.pack("!HHIH", record.type, IN, record.ttl, len(record.data)) + record.data


def encode_name(name: bytes, places: dict[bytes, int], at: int) -> bytes:
    """The name, compressed by what stands in the message before it (RFC 1035 §4.1.4)."""
    out, rest = b"", name
    while rest[0]:
        place = places.get(rest)
        if place is not None:
            return out + struct.pack("!H", 0xC000 | place)
        if at + len(out) < 0x4000:
            places[rest] = at + len(out)
        out += rest[: 1 + rest[0]]
        rest = rest[1 + rest[0] :]
    return out + ROOT


def encode(message: Message) -> bytes:
    """The message's bytes, as long as they come out: nothing is truncated."""
    sections = (message.answers, message.authority, message.additional)
    counts = [len(section) for section in sections]
    counts[2] += message.payload is not None
    out = bytearray(struct.pack("!6H", message.id, message.flags, 1 if message.question else 0, *counts))
    places: dict[bytes, int] = {}
    if message.question:
        name, kind, cls = message.question
        out += encode_name(name, places, len(out)) + struct.pack("!HH", kind, cls)
    for section in sections:
        for record in section:
            out += encode_record(record, places, len(out))
    if message.payload is not None:
        out += ROOT + struct.pack("!HHIH", OPT, message.payload, 0, 0)
    return bytes(out)


def decode(data: bytes) -> Message:
    """The message that these bytes are, without records of other classes than IN. WireError when they are none, or have
    more than one question."""
    if len(data) < 12:
        raise WireError("a DNS message has at least 12 bytes")
    id, flags, questions, *counts = struct.unpack_from("!6H", data)
    if questions > 1:
        raise WireError(f"{questions} questions in one message")
    at, question = 12, None
    if questions:
        name, at = read_name(data, at)
        if at + 4 > len(data):
            raise WireError("the question ends early")
        question = (name, *struct.unpack_from("!HH", data, at))
        at += 4
    payload, extended, sections = None, 0, []
    for count in counts:
        records = []
        for _ in range(count):
            record, cls, at = read_record(data, at)
            if record.type == OPT:
                payload, extended = cls, record.ttl >> 24
            elif cls != IN:
                continue  # what its type's data are is another class' matter
            elif not _is_whole(record):
                kind = TYPE_NAMES.get(record.type, record.type)
                raise WireError(f"{len(record.data)} bytes are no data of a record of type {kind}")
            else:
                records.append(record)
        sections.append(tuple(records))
    return Message(id, flags, question, sections[0], sections[1], sections[2], payload, extended)


def _is_whole(record: Record) -> bool:
    """Whether its data has the length of its type, where that is sure."""
    if record.type in (A, AAAA):
        return len(record.data) == (4 if record.type == A else 16)
    if record.type not in NAMES_IN:
        return True
    at, names = NAMES_IN[record.type]
    for _ in range(names):
        _, at = read_name(record.data, at)
    return len(record.data) - at == (20 if record.type == SOA else 0)


def read_name(data: bytes, at: int) -> tuple[bytes, int]:
    """The name at this offset without compression, and the offset behind it. WireError."""
    out, end, jumps = bytearray(), 0, 0
    while True:
        if at >= len(data):
            raise WireError("a name ends early")
        length = data[at]
        if length >= 0xC0:
            if at + 2 > len(data):
                raise WireError("a name ends early")
            target = struct.unpack_from("!H", data, at)[0] & 0x3FFF
            end = end or at + 2
            jumps += 1
            if target >= at or jumps > POINTERS_MOST:
                raise WireError("a compressed name points forward or in a circle")
            at = target
            continue
        if length > LABEL_MOST:
            raise WireError(f"a label of kind {length >> 6}")
        if at + 1 + length > len(data) or len(out) + 1 + length > NAME_MOST:
            raise WireError("a name ends early or is too long")
        out += data[at : at + 1 + length]
        at += 1 + length
        if not length:
            return bytes(out), end or at


# Names that may come compressed (RFC 3597 §4): bytes before, how many. The
# numbers are MB, MG, MR, MINFO, RP, AFSDB, RT, PX and DNAME.
NAMES_IN = {NS: (0, 1), CNAME: (0, 1), PTR: (0, 1), SOA: (0, 2), MX: (2, 1), SRV: (6, 1)}
NAMES_IN |= {7: (0, 1), 8: (0, 1), 9: (0, 1), 14: (0, 2), 17: (0, 2), 18: (2, 1), 21: (2, 1), 26: (2, 2), 39: (0, 1)}


def read_record(data: bytes, at: int) -> tuple[Record, int, int]:
    """The record at this offset, its class, and the offset behind it; names in its data without compression, where its
    class is IN. WireError."""
    name, at = read_name(data, at)
    if at + 10 > len(data):
        raise WireError("a record ends early")
    kind, cls, ttl, length = struct.unpack_from("!HHIH", data, at)
    at += 10
    end = at + length
    if end > len(data):
        raise WireError("a record's data ends early")
    value = data[at:end]
    if kind in NAMES_IN and cls == IN:
        before, names = NAMES_IN[kind]
        value, at = data[at : at + before], at + before
        for _ in range(names):
            part, at = read_name(data, at)
            value += part
        if at > end:
            raise WireError("a name leaves its record")
        value += data[at:end]
    return Record(name, kind, ttl if ttl < 1 << 31 or kind == OPT else 0, value), cls, end
