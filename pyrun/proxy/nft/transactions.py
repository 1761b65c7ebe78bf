"""nf_tables by netlink: transactions, and what our tables hold."""

from __future__ import annotations

import errno
import socket
import struct
import time

from ..netlink import NETFILTER, PATIENCE_S, Netlink, attributes, raise_error
from . import messages as m
from .layout import BASE_CHAINS, DISPATCH, FAMILIES, REFUSE, TABLE, Family

_header = struct.Struct("=IHHII")
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_RECEIVE = 4 << 20
_ERROR = 2


class Transactions:
    """In the network namespace of the thread that makes this. Each method raises OSError with the kernel's errno."""

    def __init__(self) -> None:
        self._asking = Netlink(NETFILTER)
        self._sending = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETFILTER)
        self._sending.bind((0, 0))
        self._sending.settimeout(PATIENCE_S)
        self._sending.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE)
        self._room = 0

    def close(self) -> None:
        self._asking.close()
        self._sending.close()

    def commit(self, batch: m.Batch, generation: int) -> None:
        """All of it or nothing. ERESTART where the kernel's generation is another (0: any)."""
        buffers = batch.buffers(generation)
        size = sum(map(len, buffers))
        if size > self._room:
            self._room = 2 * size + (1 << 16)
            self._sending.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, self._room)
        self._sending.sendmsg(buffers)
        self._await(len(batch))

    def _await(self, last: int) -> None:
        """Until the last message is acknowledged, or the batch is refused: then with the first fault."""
        fault: OSError | None = None
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            data = self._sending.recv(1 << 16)
            at = 0
            while at + _header.size <= len(data):
                length, kind, _, sequence, _ = _header.unpack_from(data, at)
                if kind == _ERROR:
                    try:
                        raise_error(data[at + _header.size : at + length])
                    except OSError as e:
                        fault = fault or e
                    if sequence in (0, last):
                        self._drain()
                        if fault is not None:
                            raise fault
                        return
                at += max((length + 3) & ~3, _header.size)
        raise TimeoutError(errno.ETIMEDOUT, "nf_tables does not answer")

    def _drain(self) -> None:
        """What follows of a refused batch."""
        self._sending.setblocking(False)
        try:
            while self._sending.recv(1 << 16):
                pass
        except OSError:
            pass
        finally:
            self._sending.settimeout(PATIENCE_S)

    # --- what is there ---

    def generation(self) -> int:
        self._asking.send(m.ask(m.GETGEN, 0, dump=False))
        _, payload = self._asking.one()
        return int.from_bytes(attributes(payload[4:])[1], "big")

    def tables(self) -> dict[int, tuple[bytes, bytes]]:
        """Ours, by the width of an address: handle, version."""
        found = {}
        for width, family in FAMILIES.items():
            for _, payload in self._asking.dump(m.ask(m.GETTABLE, family.number)):
                fields = attributes(payload[4:])
                if fields.get(1) == TABLE.encode() + b"\0":
                    found[width] = fields.get(4, b""), fields.get(6, b"")
        return found

    def chains(self, family: Family) -> set[str]:
        """The names of those that come with a use."""
        found = set()
        for _, payload in self._asking.dump(m.ask(m.GETCHAIN, family.number)):
            fields = attributes(payload[4:])
            if fields.get(1) == TABLE.encode() + b"\0":
                found.add(fields.get(3, b"").rstrip(b"\0").decode())
        return found - {REFUSE, DISPATCH, *BASE_CHAINS}

    def elements(self, family: Family, name: str) -> dict[bytes, bytes]:
        """Key → data, as messages.value() and verdict() have it."""
        request = m.ask(m.GETSETELEM, family.number, m.text(1, TABLE) + m.text(2, name))
        found: dict[bytes, bytes] = {}
        for _, payload in self._asking.dump(request):
            found.update(m.parse_elements(payload))
        return found
