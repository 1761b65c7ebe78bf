"""nf_tables' netlink messages as bytes: tables, chains, rules, sets and their elements, in one batch. Pure.

Numbers in attributes are big-endian, what lies in registers is as the packet or the machine has it. A batch is one
transaction: the kernel takes all of it or nothing. Source: linux/netfilter/nf_tables.h, nfnetlink.h.
"""

from __future__ import annotations

from struct import Struct

from ...plan.namespace.netlink import NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, attribute
from ..netlink import attributes, each_attribute

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

INET, IPV4, IPV6 = 1, 2, 10  # NFPROTO_*
NFTABLES = 10 << 8  # the subsystem, in a message's type
NEWTABLE, GETTABLE, DELTABLE, NEWCHAIN, GETCHAIN, DELCHAIN, NEWRULE, GETRULE, DELRULE = range(9)
NEWSET, GETSET, DELSET, NEWSETELEM, GETSETELEM, DELSETELEM, NEWGEN, GETGEN = range(9, 17)
BATCH_BEGIN, BATCH_END = 16, 17
NLM_F_APPEND = 0x800
NESTED = 0x8000
AT_ONCE = 60_000  # bytes of elements in one message: an attribute's length has 16 bits
BUFFERS = 1024  # that one call takes (UIO_MAXIOV)
DROP, ACCEPT, JUMP, GOTO = 0, 1, -3, -4
MAP, TIMEOUT, EVAL = 0x8, 0x10, 0x20  # flags of a set
VERDICT_TYPE = 0xFFFFFF00

_header = Struct("=IHHII")
_nfgen = Struct(">BBH")  # family, version, resource
_be32 = Struct(">I").pack
_be64 = Struct(">Q").pack


def number(kind: int, value: int) -> bytes:
    """An attribute of 32 bits."""
    return attribute(kind, _be32(value & 0xFFFFFFFF))


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def nest(kind: int, *parts: bytes) -> bytes:
    return attribute(kind | NESTED, b"".join(parts))


# --- the batch --------------------------------------------------------------------------------------------------------


class Batch:
    """Messages of one transaction, in order."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def add(self, kind: int, family: int, body: bytes, flags: int = 0) -> None:
        length = _header.size + _nfgen.size + len(body)
        head = _header.pack(length, NFTABLES | kind, NLM_F_REQUEST | flags, len(self.parts) + 1, 0)
        self.parts.append(head + _nfgen.pack(family, 0, 0) + body)

    def __len__(self) -> int:
        return len(self.parts)

    def buffers(self, generation: int = 0) -> list[bytes]:
        """The whole, as sendmsg() takes it. generation: it is refused with ERESTART where this is not the kernel's any
        more; 0 for any. The last message asks to be acknowledged: its sequence number is the length of the batch."""
        body = number(1, generation) if generation else b""
        begin = _batch_message(BATCH_BEGIN, 0, body)
        end = _batch_message(BATCH_END, len(self.parts) + 1, b"")
        *most, last = self.parts
        length, kind, flags, sequence, port = _header.unpack_from(last)
        last = _header.pack(length, kind, flags | NLM_F_ACK, sequence, port) + last[_header.size :]
        parts = [begin, *most, last, end]
        some = -(-len(parts) // BUFFERS)
        return parts if some == 1 else [b"".join(parts[at : at + some]) for at in range(0, len(parts), some)]


def _batch_message(kind: int, sequence: int, body: bytes) -> bytes:
    head = _header.pack(_header.size + _nfgen.size + len(body), kind, NLM_F_REQUEST, sequence, 0)
    return head + _nfgen.pack(0, 0, NFTABLES >> 8) + body


def ask(kind: int, family: int, body: bytes = b"", *, dump: bool = True) -> bytes:
    """A request outside of a batch."""
    flags = NLM_F_REQUEST | (NLM_F_DUMP if dump else 0)
    return _header.pack(_header.size + _nfgen.size + len(body), NFTABLES | kind, flags, 1, 0) + (
        _nfgen.pack(family, 0, 0) + body
    )


# --- objects ----------------------------------------------------------------------------------------------------------


def new_table(batch: Batch, family: int, table: str, version: bytes) -> None:
    """version: kept with the table, for who finds it."""
    batch.add(NEWTABLE, family, text(1, table) + number(2, 0) + attribute(6, version), NLM_F_CREATE)


def delete_table(batch: Batch, family: int, table: str) -> None:
    batch.add(DELTABLE, family, text(1, table))


def new_chain(batch: Batch, family: int, table: str, chain: str, hook: tuple[str, int, int] | None = None) -> None:
    """hook: (type, hook's number, priority) of a base chain, whose policy is to accept."""
    body = text(1, table) + text(3, chain)
    if hook is not None:
        body += nest(4, number(1, hook[1]), number(2, hook[2])) + number(5, ACCEPT) + text(7, hook[0])
    batch.add(NEWCHAIN, family, body, NLM_F_CREATE)


def delete_chain(batch: Batch, family: int, table: str, chain: str) -> None:
    """With its rules."""
    batch.add(DELCHAIN, family, text(1, table) + text(3, chain))


def new_rule(batch: Batch, family: int, table: str, chain: str, expressions: Iterable[bytes]) -> None:
    body = text(1, table) + text(2, chain) + nest(4, *expressions)
    batch.add(NEWRULE, family, body, NLM_F_CREATE | NLM_F_APPEND)


def flush_chain(batch: Batch, family: int, table: str, chain: str) -> None:
    batch.add(DELRULE, family, text(1, table) + text(2, chain))


class SetShape:
    """A set or map. key, data: (nftables' type number, bytes); data None for a set, VERDICT for a map of verdicts.
    dynamic: how many elements packets may put in, which go after their time; 0 where they may not."""

    __slots__ = ("data", "dynamic", "key")

    def __init__(self, key: tuple[int, int], data: tuple[int, int] | None = None, *, dynamic: int = 0) -> None:
        self.key = key
        self.data = data
        self.dynamic = dynamic


VERDICT = (VERDICT_TYPE, 0)


def new_set(batch: Batch, family: int, table: str, name: str, shape: SetShape) -> None:
    flags = (MAP if shape.data else 0) | (TIMEOUT | EVAL if shape.dynamic else 0)
    body = text(1, table) + text(2, name) + number(3, flags) + number(4, shape.key[0]) + number(5, shape.key[1])
    if shape.data is not None:
        body += number(6, shape.data[0]) + (number(7, shape.data[1]) if shape.data[1] else b"")
    if shape.dynamic:
        body += nest(9, number(1, shape.dynamic))
    batch.add(NEWSET, family, body + number(10, len(batch) + 1), NLM_F_CREATE | NLM_F_EXCL)


def delete_set(batch: Batch, family: int, table: str, name: str) -> None:
    """That no rule has."""
    batch.add(DELSET, family, text(1, table) + text(2, name))


# --- elements ---------------------------------------------------------------------------------------------------------

_attr = Struct("=HH").pack


def verdict(code: int, chain: str = "") -> bytes:
    """A verdict as a map's data: NFTA_DATA_VERDICT."""
    return nest(2, number(1, code), text(2, chain) if chain else b"")


def value(data: bytes) -> bytes:
    """A value as an element's key or data: NFTA_DATA_VALUE. data is a multiple of four bytes."""
    return _attr(4 + len(data), 1) + data


def element(key: bytes, data: bytes = b"") -> bytes:
    """One of a list. data: value() or verdict()."""
    # By hand, as there may be a hundred thousand.
    inner = _attr(8 + len(key), 1 | NESTED) + _attr(4 + len(key), 1) + key
    if data:
        inner += _attr(4 + len(data), 2 | NESTED) + data
    return _attr(4 + len(inner), 1 | NESTED) + inner


def add_elements(batch: Batch, kind: int, family: int, table: str, name: str, elements: Iterable[bytes]) -> None:
    """kind: NEWSETELEM or DELSETELEM; as many messages as it takes."""
    head = text(1, table) + text(2, name)
    flags = NLM_F_CREATE | NLM_F_EXCL if kind == NEWSETELEM else 0
    some: list[bytes] = []
    size = 0
    for one in elements:
        if size + len(one) > AT_ONCE:
            batch.add(kind, family, head + nest(3, *some), flags)
            some, size = [], 0
        some.append(one)
        size += len(one)
    if some:
        batch.add(kind, family, head + nest(3, *some), flags)


def parse_elements(payload: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(key, data) of each element in a reply to GETSETELEM, data as element() takes it."""
    for _, one in each_attribute(attributes(payload[4:]).get(3, b"")):
        fields = attributes(one)
        key = attributes(fields.get(1, b"")).get(1, b"")
        data = attributes(fields.get(2, b""))
        yield key, value(data[1]) if 1 in data else _verdict_again(data[2]) if 2 in data else b""


def _verdict_again(data: bytes) -> bytes:
    fields = attributes(data)
    code = int.from_bytes(fields.get(1, b""), "big", signed=True)
    return verdict(code, fields.get(2, b"").rstrip(b"\0").decode())


# --- expressions ------------------------------------------------------------------------------------------------------


def _expression(name: str, *parts: bytes) -> bytes:
    return nest(1, text(1, name), nest(2, *parts))


def payload(register: int, base: int, offset: int, length: int) -> bytes:
    """base: 1 for the network's header, 2 for the transport's."""
    return _expression("payload", number(1, register), number(2, base), number(3, offset), number(4, length))


def meta(register: int, key: int) -> bytes:
    return _expression("meta", number(1, register), number(2, key))


def meta_set(register: int, key: int) -> bytes:
    return _expression("meta", number(2, key), number(3, register))


def conntrack(register: int, key: int, direction: int | None = None) -> bytes:
    """direction: 0 for what the connection's first packet had, where the key is an address or port."""
    way = attribute(3, bytes((direction,))) if direction is not None else b""
    return _expression("ct", number(1, register), number(2, key), way)


def bitwise(register: int, mask: bytes, xor: bytes) -> bytes:
    """register = register & mask ^ xor."""
    parts = number(1, register), number(2, register), number(3, len(mask)), nest(4, value(mask)), nest(5, value(xor))
    return _expression("bitwise", *parts)


def compare(register: int, data: bytes, *, equal: bool = True) -> bytes:
    return _expression("cmp", number(1, register), number(2, 0 if equal else 1), nest(3, attribute(1, data)))


def judge(code: int, chain: str = "") -> bytes:
    """The rule's verdict."""
    return _expression("immediate", number(1, 0), nest(2, verdict(code, chain)))


def load(register: int, data: bytes) -> bytes:
    return _expression("immediate", number(1, register), nest(2, value(data)))


def lookup(name: str, register: int, into: int | None = None) -> bytes:
    """The set's or map's element for what begins at the register; into 0: a map's verdict is the rule's. No such
    element: the rule ends here."""
    return _expression("lookup", text(1, name), number(2, register), number(3, into) if into is not None else b"")


def take_turns(register: int, count: int, first: int) -> bytes:
    """first, first + 1, …, count numbers over and over (numgen inc)."""
    return _expression("numgen", number(1, register), number(2, count), number(3, 0), number(4, first))


def dynset(name: str, key: int, data: int, milliseconds: int) -> bytes:
    """A packet puts an element into a dynamic map, or makes the time of one that is there begin anew. key, data:
    registers."""
    update = 1
    parts = text(1, name), number(3, update), number(4, key), number(5, data), attribute(6, _be64(milliseconds))
    return _expression("dynset", *parts)


def dnat(family: int, address: int, port: int) -> bytes:
    """address, port: registers."""
    parts = number(1, 1), number(2, family), number(3, address), number(5, port)
    return _expression("nat", *parts)


def dnat_port(family: int, port: int) -> bytes:
    """To another port of the same address. port: a register."""
    return _expression("nat", number(1, 1), number(2, family), number(5, port))


def masquerade() -> bytes:
    return _expression("masq", number(1, 1 << 4))  # fully random ports: two at once seldom want the same


def reject(family: int, *, reset: bool) -> bytes:
    """A TCP reset, or ICMP's port unreachable."""
    code = 3 if family == IPV4 else 4
    return _expression("reject", number(1, 1 if reset else 0), attribute(2, bytes((0 if reset else code,))))
