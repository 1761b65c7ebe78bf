"""A netlink socket that asks and waits: for acknowledged requests, and for dumps. Source: netlink(7)."""

from __future__ import annotations

import errno
import os
import socket
import struct
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROUTE, NETFILTER = 0, 12
PATIENCE_S = 20.0
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_DUMP_INTR = 0x10
_SOL_NETLINK, _CAP_ACK, _EXT_ACK, _STRICT = 270, 10, 11, 12
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ROOM = 1 << 18


class Netlink:
    """One socket of a protocol (ROUTE, NETFILTER) in the network namespace of the thread that makes it. Not for two
    threads at once. Each wait ends after PATIENCE_S with TimeoutError. Requests have the sequence number 1, as
    pyrun/plan/namespace/netlink.py makes them."""

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _STRICT, 1)
        self._socket.settimeout(PATIENCE_S)
        self._socket.bind((0, 0))

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def do(self, request: bytes) -> None:
        """One request, carried out when this returns. OSError with the kernel's errno, and its words where it has
        some."""
        self._socket.send(request)
        for type_, payload in self._replies():
            if type_ == NLMSG_ERROR:
                raise_error(payload)
                return

    def send(self, request: bytes) -> None:
        self._socket.send(request)

    def one(self) -> tuple[int, bytes]:
        """The next reply: its type and what follows the header. OSError where it is a fault."""
        for type_, payload in self._replies():
            if type_ == NLMSG_ERROR:
                raise_error(payload)
            return type_, payload
        raise AssertionError("not reached")

    def dump(self, request: bytes) -> list[tuple[int, bytes]]:
        """(type, what follows the header) of each reply. Asked again where the answer was changed meanwhile."""
        for _ in range(10):
            self._socket.send(request)
            found, whole = [], True
            for type_, payload, flags in self._all():
                whole = whole and not flags & NLM_F_DUMP_INTR
                if type_ == NLMSG_ERROR:
                    raise_error(payload)
                if type_ in (NLMSG_ERROR, NLMSG_DONE):
                    break
                found.append((type_, payload))
            if whole:
                return found
        raise OSError(errno.EAGAIN, "the kernel's answer changes while it is read")

    def _replies(self) -> Iterator[tuple[int, bytes]]:
        for type_, payload, _ in self._all():
            yield type_, payload

    def _all(self) -> Iterator[tuple[int, bytes, int]]:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            data = self._socket.recv(_ROOM)
            at = 0
            while at + _HEADER.size <= len(data):
                length, type_, flags, _, _ = _HEADER.unpack_from(data, at)
                if length < _HEADER.size:
                    break
                yield type_, data[at + _HEADER.size : at + length], flags
                at += (length + 3) & ~3
        raise TimeoutError(errno.ETIMEDOUT, "netlink does not answer")


def raise_error(payload: bytes) -> None:
    """Nothing for an acknowledgement; else the OSError of an NLMSG_ERROR, with the kernel's words."""
    code = -int.from_bytes(payload[:4], "little", signed=True)
    if not code:
        return
    words = attributes(payload[20:]).get(1, b"").rstrip(b"\0").decode(errors="replace")
    raise OSError(code, f"{os.strerror(code)}: {words}" if words else os.strerror(code))


def attributes(data: bytes | memoryview) -> dict[int, bytes]:
    """Attributes by their number, without the bits that tell of nesting and byte order; the last of equal ones."""
    found: dict[int, bytes] = {}
    for kind, value in each_attribute(data):
        found[kind] = value
    return found


def each_attribute(data: bytes | memoryview) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            return
        yield kind & 0x3FFF, bytes(data[at + _ATTRIBUTE.size : at + length])
        at += (length + 3) & ~3


__all__: Sequence[str] = ["NETFILTER", "ROUTE", "Netlink", "attributes", "each_attribute", "raise_error"]
