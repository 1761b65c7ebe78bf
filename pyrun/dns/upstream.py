"""One other server: connected UDP sockets on ports that the kernel draws, and TCP for what does not fit.

A forger has to guess a port, an id and the case of the name's letters; ids come of the system's random numbers
(CVE-2019-19794), and a socket is used a hundred times at most. A connected socket takes only that server's datagrams,
and tells at once when nobody listens there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import socket
import time
from collections.abc import Callable
from typing import Protocol

from .loop import Loop
from .reply import CASE, MATCH, PLAIN, belongs, is_cut, make_query, mixed
from .servers import Address

POOL, USES_MOST, TCP_ATTEMPTS_MOST = 16, 100, 128
LEARN_AGAIN_S = 900.0  # what a server can't do is believed for so long (RFC 6891 §7): another one may be in its place
UNREACHABLE = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EPERM, errno.EACCES, errno.EINVAL)
CHANCE = random.SystemRandom()


class Waits(Protocol):
    """Who wants to know. took: whole replies, of any rcode. failed: this server has nothing to say."""

    name: bytes
    kind: int

    def took(self, server: Upstream, data: bytes) -> None: ...
    def failed(self, server: Upstream) -> None: ...


class Upstream:
    """loops: asking it comes back to ourselves. ignored: datagrams that belonged to no question."""

    def __init__(self, loop: Loop, address: Address) -> None:
        self.loop = loop
        self.address = address
        self.loops = False
        self._no_case_until = self._no_edns_until = 0.0
        self.failures = 0
        self.asked = self.ignored = self.tcp = self.failed = 0
        self._sockets: list[_Socket] = []
        self._attempts: set[_Tcp] = set()

    def __str__(self) -> str:
        host, port = self.address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def keeps_case(self) -> bool:
        """It echoes the letters as they were, or has not failed to lately."""
        return time.monotonic() >= self._no_case_until

    @property
    def edns(self) -> bool:
        """It has not said lately that it knows none."""
        return time.monotonic() >= self._no_edns_until

    def changes_case(self) -> None:
        self._no_case_until = time.monotonic() + LEARN_AGAIN_S

    def knows_no_edns(self) -> None:
        self._no_edns_until = time.monotonic() + LEARN_AGAIN_S

    def counts(self) -> dict[str, int]:
        return {"asked": self.asked, "tcp": self.tcp, "failed": self.failed, "ignored": self.ignored}

    def ask(self, waits: Waits) -> Callable[[], None]:
        """Asks, and returns what ends the wait for it."""
        self.asked += 1
        try:
            one = self._socket()
        except OSError:
            self.loop.after(0, lambda: self.fail(waits))
            return lambda: None
        return one.ask(waits)

    def fail(self, waits: Waits) -> None:
        self.missed()
        waits.failed(self)

    def missed(self) -> None:
        """It has not answered, or not in time. failures: of these in a row."""
        self.failures += 1
        self.failed += 1

    def ask_tcp(self, waits: Waits) -> None:
        self.tcp += 1
        if len(self._attempts) >= TCP_ATTEMPTS_MOST:
            self.fail(waits)
            return
        try:
            self._attempts.add(_Tcp(self, waits))
        except OSError:  # no descriptor is left
            self.fail(waits)

    def ended(self, attempt: _Tcp) -> None:
        self._attempts.discard(attempt)

    def _socket(self) -> _Socket:
        if len(self._sockets) < POOL:
            self._sockets.append(_Socket(self))
            return self._sockets[-1]
        at = CHANCE.randrange(POOL)
        if self._sockets[at].uses >= USES_MOST:
            self._sockets[at].retire()
            self._sockets[at] = _Socket(self)
        return self._sockets[at]

    def close(self) -> None:
        for one in self._sockets:
            one.close()
        for attempt in list(self._attempts):
            attempt.close()
        self._sockets.clear()


def family_of(address: Address) -> int:
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET


class _Socket:
    def __init__(self, server: Upstream) -> None:
        self.server = server
        self.uses = 0
        self.retired = False
        self.asked: dict[bytes, tuple[Waits, bytes]] = {}  # id → who, and the query
        flags = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self.socket = socket.socket(family_of(server.address), flags)
        try:
            self.socket.connect(server.address)
        except OSError:
            self.socket.close()
            raise
        server.loop.read(self.socket.fileno(), self.read)

    def ask(self, waits: Waits) -> Callable[[], None]:
        self.uses += 1
        while (id := os.urandom(2)) in self.asked:
            pass
        self._send(id, waits)
        return lambda: self._forget(id)

    def _send(self, id: bytes, waits: Waits) -> None:
        name = mixed(waits.name, CHANCE.getrandbits(256)) if self.server.keeps_case else waits.name
        query = make_query(int.from_bytes(id, "big"), name, waits.kind, self.server.edns)
        self.asked[id] = (waits, query)
        with contextlib.suppress(BlockingIOError):  # then it is lost, as datagrams may be
            try:
                self.socket.send(query)
            except BlockingIOError:
                raise
            except OSError:
                self.server.loop.after(0, lambda: self._fail(id))

    def _forget(self, id: bytes) -> None:
        self.asked.pop(id, None)
        if self.retired and not self.asked:
            self.close()

    def _fail(self, id: bytes) -> None:
        if found := self.asked.pop(id, None):
            self.server.fail(found[0])

    def read(self) -> None:
        for _ in range(64):
            if self.socket.fileno() < 0:
                return
            try:
                data = self.socket.recv(4096)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in UNREACHABLE:
                    for id in list(self.asked):
                        self._fail(id)
                return
            self._take(data)

    def _take(self, data: bytes) -> None:
        found = self.asked.get(data[:2])
        how = belongs(data, found[1]) if found else ""
        if found is None or how not in (MATCH, CASE, PLAIN):
            self.server.ignored += 1
            return
        if how == PLAIN:
            self.server.knows_no_edns()
            self._send(data[:2], found[0])
            return
        self._forget(data[:2])
        if how == CASE or is_cut(data):
            if how == CASE:
                self.server.changes_case()
            self.server.ask_tcp(found[0])
            return
        self.server.failures = 0
        found[0].took(self.server, data)

    def retire(self) -> None:
        self.retired = True
        if not self.asked:
            self.close()

    def close(self) -> None:
        if self.socket.fileno() >= 0:
            self.server.loop.forget(self.socket.fileno())
            self.socket.close()


class _Tcp:
    """One question over a connection of its own. Its end is its server's time-out at the latest."""

    PATIENCE_S = 4.0

    def __init__(self, server: Upstream, waits: Waits) -> None:
        self.server, self.waits = server, waits
        name = mixed(waits.name, CHANCE.getrandbits(256))
        self.query = query = make_query(int.from_bytes(os.urandom(2), "big"), name, waits.kind, server.edns)
        self.left = len(query).to_bytes(2, "big") + query
        self.data = b""
        flags = socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self.socket = socket.socket(family_of(server.address), flags)
        self.timer = server.loop.after(self.PATIENCE_S, self.fail)
        try:
            self.socket.connect(server.address)
        except BlockingIOError:
            pass
        except OSError:
            self.timer.cancel()
            self.timer = server.loop.after(0, self.fail)
            return
        server.loop.write(self.socket.fileno(), self.write)

    def write(self) -> None:
        try:
            self.left = self.left[self.socket.send(self.left) :]
        except BlockingIOError:
            return
        except OSError:
            self.fail()
            return
        if not self.left:
            self.server.loop.forget(self.socket.fileno())
            self.server.loop.read(self.socket.fileno(), self.read)

    def read(self) -> None:
        try:
            data = self.socket.recv(65537)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.data += data
        size = int.from_bytes(self.data[:2], "big") if len(self.data) >= 2 else 65536
        if len(self.data) - 2 >= size:
            message = self.data[2 : 2 + size]
            how = belongs(message, self.query)
            if how == PLAIN:
                self.close()
                self.server.knows_no_edns()
                self.server.ask_tcp(self.waits)
                return
            if how in (MATCH, CASE):
                self.close()
                self.server.failures = 0
                self.waits.took(self.server, message)
                return
            data = b""
        if not data:
            self.fail()

    def fail(self) -> None:
        self.close()
        self.server.fail(self.waits)

    def close(self) -> None:
        self.timer.cancel()
        self.server.ended(self)
        if self.socket.fileno() >= 0:
            self.server.loop.forget(self.socket.fileno())
            self.socket.close()
