"""What the service proxy does with packets, without a word of Kubernetes: the plan that both modes carry out.

A packet is looked up by (protocol, address, port). A `Frontend` that has this key decides by the client's address: its
first `Choice` whose sources hold that address is taken. What no frontend has is none of the proxy's business (PASS),
but in `Rules.ranges`: there other ports of an address that is given to a Service are rejected, and packets for an
address that is given to none are dropped.

Addresses are 4 or 16 bytes in network order; ports, protocols and seconds are numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

from ..kube.addresses import Prefix as Prefix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

TCP, UDP, SCTP = 6, 17, 132  # IANA protocol numbers
PROTOCOLS = {TCP: "tcp", UDP: "udp", SCTP: "sctp"}

# What becomes of a packet. PASS is not caught at all, and so is the action of no Choice.
FORWARD, REJECT, DROP, PASS = 0, 1, 2, 3
ACTIONS = ("forward", "reject", "drop", "pass")

Key = tuple[int, bytes, int]  # protocol, address, port


@dataclass(frozen=True, slots=True)
class Choice:
    """What becomes of packets from `sources`; without sources, of all that are left. A Frontend's last one has none.

    endpoints: the key of an EndpointSet, which is never empty; None unless action is FORWARD. replace_source: the
    endpoint sees the node's address (masquerade); else the client's is kept, but for an endpoint that calls itself
    (hairpin), which whoever carries this out has to see. why: for people. pointer: the field of the frontend's object
    that decided, where it is another than the frontend's own.
    """

    sources: tuple[Prefix, ...]
    action: int
    endpoints: str | None = None
    replace_source: bool = False
    why: str = ""
    pointer: str = ""


@dataclass(frozen=True, slots=True)
class Frontend:
    """One address and port that is caught.

    name: for people, "default/web:http cluster". affinity: seconds for which a client keeps its endpoint after its last
    connection; 0, not at all. kernel: this one is wanted in the kernel, whatever the mode of the others. origin: the
    object and pointer that ask for it.
    """

    name: str
    protocol: int
    address: bytes
    port: int
    choices: tuple[Choice, ...]
    affinity: int = 0
    kernel: bool = False
    origin: str = ""

    @property
    def key(self) -> Key:
        return self.protocol, self.address, self.port

    @property
    def owner(self) -> tuple[str, str]:
        """Namespace and name of who asks for it, out of its name."""
        namespace, _, name = self.name.partition(":")[0].partition("/")
        return namespace, name


class Endpoint(NamedTuple):
    """A backend that may be used. One that is terminating is there only when its set has no other kind. own: its
    address is the node's, so what it answers to a client goes there directly, by no socket of a data plane."""

    address: bytes
    port: int
    serving: bool = True
    terminating: bool = False
    own: bool = False


class EndpointSet:
    """Endpoints in the order in which they take turns. The key stays while they change.

    A value, that may not be changed. There may be a hundred thousand endpoints and few are looked at at a time, so they
    are kept as bytes: flags, port, address.
    """

    __slots__ = ("_packed", "count", "key")
    _SERVING, _TERMINATING, _LONG, _OWN = 1, 2, 4, 8
    _HEAD = Struct(">BH")
    _KINDS = bytes([flags >> 1 & 1 | flags >> 2 & 2 for flags in range(256)])

    def __init__(self, key: str, endpoints: Iterable[Endpoint]) -> None:
        self.key = key
        pack = self._HEAD.pack
        packed = [
            pack(serving | terminating << 1 | (len(address) == 16) << 2 | own << 3, port) + address
            for address, port, serving, terminating, own in endpoints
        ]
        self.count = len(packed)
        self._packed = b"".join(packed)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Made anew each time."""
        packed, at, found = self._packed, 0, []
        while at < len(packed):
            flags, port = self._HEAD.unpack_from(packed, at)
            at += 3
            end = at + (16 if flags & self._LONG else 4)
            address = packed[at:end]
            said = [bool(flags & one) for one in (self._SERVING, self._TERMINATING, self._OWN)]
            found.append(Endpoint(address, port, *said))
            at = end
        return tuple(found)

    def columns(self) -> list[bytes] | None:
        """A byte of each endpoint at a time: 1 where it is terminating, and 2 more where it is the node's own; the
        port's two; the address's 4 or 16. None where some have another length than others."""
        packed, count = self._packed, self.count
        width = len(packed) // count if count else 0
        if width * count != len(packed) or width not in (self._HEAD.size + 4, self._HEAD.size + 16):
            return None
        flags, *others = [packed[at::width] for at in range(width)]
        return [flags.translate(self._KINDS), *others]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, EndpointSet):
            return NotImplemented
        return self.key == other.key and self._packed == other._packed

    def __hash__(self) -> int:
        return hash((self.key, self._packed))

    def __repr__(self) -> str:
        return f"EndpointSet(key={self.key!r}, endpoints={self.endpoints!r})"


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """A port on which load balancers ask over HTTP whether this node has an endpoint (healthCheckNodePort)."""

    port: int
    namespace: str
    name: str
    local: int  # ready endpoints on this node


@dataclass(frozen=True, slots=True)
class Refusal:
    """What an object asks for and does not get. subject: the address, port or field; why: half a sentence. reason: the
    same in one word, for programs. owner: namespace and name of whoever is served less for it."""

    subject: str
    why: str
    origin: str
    reason: str
    owner: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Rules:
    """All of it. frontends are unique by key; a port of the node is a frontend for each address of the node that has
    it. ranges: of services; in them what is no frontend is rejected (TCP reset, ICMP port unreachable) if its address
    is among the allocated ones, which may lie outside of the ranges as well, and dropped if it is not. own: addresses
    of the ranges at which a program of this node answers, so that nothing there is kept from it."""

    frontends: tuple[Frontend, ...] = ()
    sets: tuple[EndpointSet, ...] = ()
    ranges: tuple[Prefix, ...] = ()
    own: tuple[bytes, ...] = ()
    allocated: tuple[bytes, ...] = ()
    health: tuple[HealthCheck, ...] = ()
    refused: tuple[Refusal, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """What makes new Rules of old ones. A frontend or set that is put replaces the one of the same key."""

    frontends_put: tuple[Frontend, ...] = ()
    frontends_gone: tuple[Key, ...] = ()
    sets_put: tuple[EndpointSet, ...] = ()
    sets_gone: tuple[str, ...] = ()
    allocated_put: tuple[bytes, ...] = ()
    allocated_gone: tuple[bytes, ...] = ()

    def __bool__(self) -> bool:
        some = self.frontends_put or self.frontends_gone or self.sets_put or self.sets_gone
        return bool(some or self.allocated_put or self.allocated_gone)


def difference(old: Rules, new: Rules) -> Change:
    """The change from old to new, by walking through both: for the start, and where nobody noted what has changed."""
    frontends, sets = {f.key: f for f in old.frontends}, {s.key: s for s in old.sets}
    put = tuple([f for f in new.frontends if frontends.get(f.key) != f])
    sets_put = tuple([s for s in new.sets if sets.get(s.key) != s])
    keys, names = {f.key for f in new.frontends}, {s.key for s in new.sets}
    return Change(
        frontends_put=put,
        frontends_gone=tuple([key for key in frontends if key not in keys]),
        sets_put=sets_put,
        sets_gone=tuple([key for key in sets if key not in names]),
        allocated_put=tuple(sorted(set(new.allocated) - set(old.allocated))),
        allocated_gone=tuple(sorted(set(old.allocated) - set(new.allocated))),
    )
