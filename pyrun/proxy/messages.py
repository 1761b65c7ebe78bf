"""The requests that the data plane takes, and its replies (cffi_build/dataplane/wire.h), pure."""

from __future__ import annotations

import struct
from dataclasses import astuple, dataclass

from ..errors import PyrunError
from .encode import GONE, MAGIC, TERMINATING, VERSION, narrow

HELLO, SETTINGS, LISTEN, APPLY, COUNTERS, GIVE, RETIRE, END = range(1, 9)
KEEP, KEPT, GIVE_SOCKETS, TAKE_SOCKETS, GIVE_FLOWS, TAKE_FLOWS, GIVE_PINS, TAKE_PINS = range(9, 17)
INLINE_MOST = 60000  # bytes of an image in a message; a longer one goes as a memfd
REPLY_MOST = 8192
RETIRING, SHORT, WAITING = 1, 2, 4  # flags of a State

REQUEST = struct.Struct("<IHHQ")
REPLY = struct.Struct("<IHHiIQ104s")
STATE = struct.Struct("<7Q4I")
SETTING = struct.Struct("<8I2HI")
COUNTERS_HEAD = struct.Struct("<IHHII")
FRONTEND = struct.Struct("<16sHBBI6Q")
ENDPOINT = struct.Struct("<Q16sHHIQQ")


@dataclass(frozen=True, slots=True)
class Settings:
    """Bounds of the data plane. Times whose name ends in _s are seconds; 0: never.

    connect_ms: for how long an endpoint may be silent. tries: how many endpoints one connection tries, 1 to 4.
    half_closed_s: without a byte, after which a half-closed connection is reset. drain_s: after which connections to an
    endpoint that has gone are reset. udp_new_s, udp_stream_s: after which a flow without and with an answer is
    forgotten. udp_flows: at a time, udp_source: of one client. port_low, port_high: source ports of connections that
    keep the client's address (0: the node's range). max_connections: at a time, 0: as descriptors allow.
    """

    connect_ms: int = 1000
    tries: int = 3
    half_closed_s: int = 900
    drain_s: int = 0
    udp_new_s: int = 30
    udp_stream_s: int = 180
    udp_flows: int = 16384
    udp_source: int = 1024
    port_low: int = 61000
    port_high: int = 64999
    max_connections: int = 0

    def encode(self) -> bytes:
        return SETTING.pack(*astuple(self))


@dataclass(frozen=True, slots=True)
class State:
    """What a data plane says of itself."""

    generation: int
    connections: int
    flows: int
    frontends: int
    sets: int
    accepted: int
    refused_by_limit: int
    pid: int
    flags: int
    listeners: int
    limit: int

    @property
    def is_short(self) -> bool:
        """Within the last seconds it had no descriptor or no memory for a connection: those that came wait, or were
        reset."""
        return bool(self.flags & SHORT)

    @property
    def is_waiting(self) -> bool:
        """A frontend of UDP or SCTP has not got its socket: its counters have the error."""
        return bool(self.flags & WAITING)


@dataclass(frozen=True, slots=True)
class FrontendCounters:
    """error: an errno, why it has no socket, which is tried again; 0: it has, or needs none. failed: connections no
    endpoint took; refused: rejected by a rule or a bound; retried: endpoints that did not take one, after which another
    was tried. bytes_in: from clients."""

    address: bytes
    port: int
    protocol: int
    error: int
    active: int
    accepted: int
    failed: int
    refused: int
    bytes_in: int
    bytes_out: int
    retried: int


@dataclass(frozen=True, slots=True)
class EndpointCounters:
    """set: encode.set_number() of its set's key. gone: it is in no set any more, and has connections."""

    set: int
    address: bytes
    port: int
    terminating: bool
    gone: bool
    active: int
    connected: int
    failed: int


@dataclass(frozen=True, slots=True)
class Counters:
    frontends: tuple[FrontendCounters, ...]
    endpoints: tuple[EndpointCounters, ...]


@dataclass(frozen=True, slots=True)
class Reply:
    kind: int
    error: int
    generation: int
    text: str
    body: bytes


def request(kind: int, value: int = 0, body: bytes = b"") -> bytes:
    return REQUEST.pack(MAGIC, VERSION, kind, value) + body


def read_reply(data: bytes) -> Reply:
    """PyrunError where it is none."""
    if len(data) < REPLY.size:
        raise PyrunError("the data plane's answer is too short", hint="is it of another version?")
    magic, version, kind, error, size, generation, text = REPLY.unpack_from(data)
    if magic != MAGIC or version != VERSION or len(data) != REPLY.size + size:
        raise PyrunError("the data plane's answer is none", hint="is it of another version?")
    return Reply(kind, error, generation, text.rstrip(b"\0").decode("utf-8", "replace"), data[REPLY.size :])


def read_state(body: bytes) -> State:
    return State(*STATE.unpack(body))


def read_counters(data: bytes) -> Counters:
    magic, version, _, n_frontends, n_endpoints = COUNTERS_HEAD.unpack_from(data)
    middle = COUNTERS_HEAD.size + n_frontends * FRONTEND.size
    end = middle + n_endpoints * ENDPOINT.size
    if magic != MAGIC or version != VERSION or len(data) != end:
        raise PyrunError("the data plane's counters are none", hint="is it of another version?")
    return Counters(
        tuple(_frontend(row) for row in FRONTEND.iter_unpack(data[COUNTERS_HEAD.size : middle])),
        tuple(_endpoint(row) for row in ENDPOINT.iter_unpack(data[middle:end])),
    )


def _frontend(row: tuple[bytes, int, int, int, int, int, int, int, int, int, int]) -> FrontendCounters:
    address, *rest = row
    return FrontendCounters(narrow(address), *rest)


def _endpoint(row: tuple[int, bytes, int, int, int, int, int]) -> EndpointCounters:
    number, address, port, flags, *rest = row
    return EndpointCounters(number, narrow(address), port, bool(flags & TERMINATING), bool(flags & GONE << 8), *rest)
