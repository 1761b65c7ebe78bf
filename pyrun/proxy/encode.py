"""Rules as the data plane reads them: fixed-size little-endian records (cffi_build/dataplane/wire.h), pure.

An image is complete, or changes the one of a generation. An IPv4 address is written ::ffff:a.b.c.d, and a prefix of one
is 96 bits longer. A set goes by a number, which is a digest of its key: whoever encodes it, today or after a restart.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from hashlib import blake2b

from ..errors import PyrunError
from .rules import FORWARD, PASS, Change, Choice, Endpoint, EndpointSet, Frontend, Key, Prefix, Rules

MAGIC, VERSION = 0x50445850, 1
FULL, GONE, TERMINATING, OWN = 1, 1, 1, 2
MAPPED = bytes(10) + b"\xff\xff"

HEAD = struct.Struct("<IHHQQIIIIII")
SET = struct.Struct("<QIIII")
ENDPOINT = struct.Struct("<16sHHI")
FRONTEND = struct.Struct("<16sHBBIII")
CHOICE = struct.Struct("<QIIBBHI")
PREFIX = struct.Struct("<16sB3x")


def wide(address: bytes) -> bytes:
    """16 bytes, of 4 or 16."""
    return MAPPED + address if len(address) == 4 else address


def narrow(address: bytes) -> bytes:
    """The inverse of wide()."""
    return address[12:] if address.startswith(MAPPED) else address


def set_number(key: str) -> int:
    """The number of the set of this key; never 0."""
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "little") or 1


class Image:
    """An image that is being put together."""

    def __init__(self) -> None:
        self._sets: list[bytes] = []
        self._endpoints: list[bytes] = []  # of each set
        self._count = 0  # of endpoints
        self._frontends: list[bytes] = []
        self._choices: list[bytes] = []
        self._prefixes: list[bytes] = []
        self._numbers: dict[int, str] = {}

    def put_set(self, s: EndpointSet) -> None:
        """PyrunError where two keys have the same digest, for which one has to be renamed."""
        number = set_number(s.key)
        other = self._numbers.setdefault(number, s.key)
        if other != s.key:
            raise PyrunError(f"endpoint sets {other} and {s.key} have the same number", hint="rename one of the two")
        self._sets.append(SET.pack(number, self._count, s.count, 0, 0))
        self._endpoints.append(_endpoints(s))
        self._count += s.count

    def remove_set(self, key: str) -> None:
        self._sets.append(SET.pack(set_number(key), 0, 0, GONE, 0))

    def put_frontend(self, f: Frontend) -> None:
        first, count = len(self._choices), len(f.choices)
        self._frontends.append(FRONTEND.pack(wide(f.address), f.port, f.protocol, 0, f.affinity, first, count))
        for choice in f.choices:
            self._put_choice(f, choice)

    def remove_frontend(self, key: Key) -> None:
        protocol, address, port = key
        self._frontends.append(FRONTEND.pack(wide(address), port, protocol, GONE, 0, 0, 0))

    def _put_choice(self, f: Frontend, c: Choice) -> None:
        if c.action >= PASS or (c.action == FORWARD) != (c.endpoints is not None):
            raise PyrunError(f"{f.name}: a choice of action {c.action} with endpoints {c.endpoints}")
        number = set_number(c.endpoints) if c.endpoints is not None else 0
        first, count = len(self._prefixes), len(c.sources)
        self._choices.append(CHOICE.pack(number, first, count, c.action, c.replace_source, 0, 0))
        self._prefixes += map(_prefix, c.sources)

    def encode(self, generation: int, base: int | None) -> bytes:
        """base: the generation that this one changes; None: this is all there is."""
        arrays = self._sets, self._endpoints, self._frontends, self._choices, self._prefixes
        counts = len(self._sets), self._count, len(self._frontends), len(self._choices), len(self._prefixes)
        flags = FULL if base is None else 0
        head = HEAD.pack(MAGIC, VERSION, flags, generation, base or 0, *counts, 0)
        return b"".join([head, *(record for array in arrays for record in array)])


def _endpoints(s: EndpointSet) -> bytes:
    """Their records. Column by column, as there may be a hundred thousand."""
    columns = s.columns()
    if columns is None:
        return b"".join(map(_endpoint, s.endpoints))
    flags, high, low, *address = columns
    size = ENDPOINT.size
    made = bytearray((MAPPED + bytes(size - len(MAPPED))) * s.count)
    for at, column in enumerate(address, 16 - len(address)):
        made[at::size] = column
    made[16::size], made[17::size], made[18::size] = low, high, flags
    return bytes(made)


def _endpoint(e: Endpoint) -> bytes:
    return ENDPOINT.pack(wide(e.address), e.port, TERMINATING * e.terminating | OWN * e.own, 0)


def _prefix(p: Prefix) -> bytes:
    address, length = p
    return PREFIX.pack(wide(address), length + 96 if len(address) == 4 else length)


def encode_rules(rules: Rules, generation: int) -> bytes:
    """All of them. PyrunError: Image.put_set()."""
    return _encode(rules.sets, rules.frontends, (), (), generation, None)


def encode_change(change: Change, generation: int, base: int) -> bytes:
    """What makes `generation` of `base`."""
    return _encode(change.sets_put, change.frontends_put, change.sets_gone, change.frontends_gone, generation, base)


def _encode(
    sets: Iterable[EndpointSet],
    frontends: Iterable[Frontend],
    sets_gone: Iterable[str],
    frontends_gone: Iterable[Key],
    generation: int,
    base: int | None,
) -> bytes:
    image = Image()
    for s in sets:
        image.put_set(s)
    for f in frontends:
        image.put_frontend(f)
    for name in sets_gone:
        image.remove_set(name)
    for key in frontends_gone:
        image.remove_frontend(key)
    return image.encode(generation, base)
