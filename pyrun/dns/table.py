"""The table of answers, as a value: which names there are, and their records. plan.py makes it, answer.py reads it.

Names are wire form in lower case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from . import wire
from .objects import Fault, Where


@dataclass(frozen=True, slots=True)
class Entry:
    """One record of a name. origin: the object and pointer that it comes from, for people."""

    data: bytes
    origin: Where


@dataclass(frozen=True, slots=True)
class Node:
    """A name that exists; one without records is there because something is below it (an empty non-terminal).
    target: where an alias leads, which has no records but its CNAME."""

    records: Mapping[int, tuple[Entry, ...]]
    target: bytes | None = None


@dataclass(frozen=True, slots=True)
class Zone:
    """What is answered from here only: a name in it that is no node does not exist. soa: data of its SOA record."""

    name: bytes
    soa: bytes


@dataclass(frozen=True, slots=True)
class Path:
    """A pod's search path. suffix: what its resolver puts behind a name first. then: what it tries next, in order, the
    root last: the name as it was written."""

    suffix: bytes
    then: tuple[bytes, ...]

    def names(self, name: bytes) -> list[bytes]:
        """What is tried after this name, in lower case, has not been found; nothing where it does not begin so."""
        base = name.removesuffix(self.suffix)
        if name == base or self.suffix not in wire.parents(name):
            return []
        return [base + rest for rest in self.then if len(base) + len(rest) <= wire.NAME_MOST]


@dataclass(frozen=True, slots=True)
class Table:
    """ttl: seconds, of every record and negative answer. zones: the longest names first. A node outside all zones is
    answered from here too, its neighbours are not. refused: as many as are named; refused_more: the others' number.
    clients: the search path of who asks from an address of 16 bytes (IPv4's mapped into IPv6), for autopath."""

    zones: tuple[Zone, ...] = ()
    nodes: Mapping[bytes, Node] = field(default_factory=dict)
    ttl: int = 5
    refused: tuple[Fault, ...] = ()
    clients: Mapping[bytes, Path] = field(default_factory=dict)
    refused_more: int = 0
