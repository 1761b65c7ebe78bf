"""Python's end of pyrun-dns' control socket: its table, its sockets, and the questions that other servers are asked.

Messages are SEQPACKET: what is asked of the program begins with its operation (4 bytes) and 4 zero bytes, little-endian
(cffi_build/dns/control.c). Sockets and the table's memfd travel as descriptors.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
import time
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import NamedTuple

from ..errors import PyrunError, reason
from ..memfd import sealed
from ..rights import receive_message, send_message
from .respond import Sections

CONFIG, TABLE, ANSWER, SOCKETS, STOP, STATUS, GIVE, FLUSH, LOOK = range(1, 10)
HELLO, DONE, ASK, STATUS_IS, GIVEN, LOOKED = range(101, 107)
FAILED, ALIAS = 1, 2
PATIENCE_S = 10.0
MESSAGE_MOST = 1 << 17
ANSWER_HEAD = struct.Struct("<IIQII8HBB6x")
ASK_HEAD = struct.Struct("<IHBB16s")
LOOKED_HEAD = struct.Struct("<IBBHQI4x")
NOBODY, TABLE_HAS, CACHE_HAS, OLD, OTHERS = range(5)
# Of queries as CoreDNS counts them: "dropped" are those that were not read.
KINDS = (
    *("dropped", "other", "A", "NS", "CNAME", "SOA", "PTR", "MX", "TXT", "AAAA", "SRV", "DS", "RRSIG", "NSEC"),
    *("DNSKEY", "NSEC3", "HTTPS", "IXFR", "AXFR", "ANY"),
)
TIMES = 17
QUERIES = [f"queries_{proto}_{family}_{kind}" for proto in ("udp", "tcp") for family in "12" for kind in KINDS]
COUNTERS = (
    *("answers", "nxdomain", "nodata", "dropped_source", "dropped_rate", "malformed", "refused", "truncated", "asked"),
    *("stale", "failed", "tcp_accepted", "tcp_refused", "send_failed", "shared", "autopath", "misses", "refreshed"),
    *("hits_success", "hits_denial"),
    *(f"{prefix}_{number}" for prefix in ("rcode", "unread_rcode") for number in range(7)),
    *QUERIES,
    *(f"time_{kind}_{place}" for kind in KINDS for place in range(TIMES)),
    *(f"time_ns_{kind}" for kind in KINDS),
)
STATE = ("names", "entries_success", "entries_denial", "cache_bytes", "waiting")
ASKED = {CONFIG: "the settings", TABLE: "the table", SOCKETS: "the sockets", STOP: "to end", FLUSH: "a flush"}


def protocol() -> int:
    """A digest of what messages mean, which build.py compiles into the program. HELLO, GIVE and STOP stay as they are,
    so that one of any version can be followed by another."""
    words = [*map(str, range(CONFIG, LOOK + 1)), *map(str, range(HELLO, LOOKED + 1)), str(FAILED), str(ALIAS)]
    words += [ANSWER_HEAD.format, ASK_HEAD.format, LOOKED_HEAD.format, *STATE, *COUNTERS]
    return int.from_bytes(blake2b("\0".join(words).encode(), digest_size=4).digest(), "little")


PROTOCOL = protocol()


class Ended(PyrunError):
    """The program that we speak with is no more, or does not answer in time: it is of no use."""


class Refused(PyrunError):
    """The program does not take this, such as a table, and goes on with what it has."""


class Question(NamedTuple):
    """What another server is to be asked. source: 16 bytes of who wants to know, zeros when nobody waits."""

    name: bytes
    kind: int
    refresh: bool
    alias: bool
    source: bytes


class Looked(NamedTuple):
    """What would be replied, and where it comes from: NOBODY, who gets no reply; TABLE_HAS; CACHE_HAS or OLD, what
    another server has said of `name`, lately or once; OTHERS, who would be asked for `name`. left_s: for which it is
    kept; of OTHERS, for which an old answer is good where they are silent."""

    origin: int
    name: bytes
    left_s: int
    generation: int
    reply: bytes


class Responder:
    """A running pyrun-dns. Not for several threads at once. Each call that waits for a reply has a deadline, and keeps
    questions that come meanwhile for ask(). is_known: it speaks our version of the protocol; else its sockets can be
    taken and it can be stopped, and no more."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._questions: list[Question] = []
        message, _ = self._wait(HELLO)
        version, self.generation, self.pid, self.sockets = struct.unpack_from("<IQII", message, 4)
        self.is_known = version == PROTOCOL

    @classmethod
    def connect(cls, path: str) -> Responder:
        """PyrunError when none listens there."""
        try:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        except OSError as error:
            raise PyrunError(f"pyrun-dns at {path}: {reason(error)}")
        try:
            connection.connect(path)
            return cls(connection)
        except OSError as error:
            connection.close()
            raise PyrunError(f"pyrun-dns at {path}: {reason(error)}")
        except PyrunError:
            connection.close()
            raise

    def close(self) -> None:
        """Leaves it alone: it goes on with what it has."""
        self.connection.close()

    def give_up(self) -> None:
        """Whoever waits for it, in another thread, does so no more: Ended."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def fileno(self) -> int:
        return self.connection.fileno()

    def configure(self, prefixes: Iterable[tuple[bytes, int]], *, rate: int, forwards: bool, cache_bytes: int) -> None:
        """prefixes: who is answered, as (4 or 16 bytes, bits). rate: UDP replies a second to one source; 0: any."""
        body = struct.pack("<4I", rate, forwards, cache_bytes, 0)
        for address, bits in prefixes:
            four = len(address) == 4
            body += (bytes(10) + b"\xff\xff" + address if four else address) + bytes((bits + 96 if four else bits, 0))
        self._do(CONFIG, body)

    def put_table(self, data: bytes) -> int:
        """Its generation, once it is what is answered from. Refused."""
        fd = sealed("table", data)
        try:
            generation = self._do(TABLE, b"", [fd])
        finally:
            os.close(fd)
        self.generation = generation
        return generation

    def add_sockets(self, sockets: Sequence[socket.socket | int]) -> int:
        """Bound UDP and listening TCP sockets, at which it answers from now on. How many it then has."""
        return self._do(SOCKETS, b"", [s if isinstance(s, int) else s.fileno() for s in sockets])

    def take_sockets(self) -> list[socket.socket]:
        """The sockets that it has, as descriptors of our own."""
        self._send(GIVE, b"")
        _, fds = self._wait(GIVEN)
        return [socket.socket(fileno=fd) for fd in fds]

    def stop(self) -> None:
        """It takes no more queries, answers those that it has taken, and ends."""
        self._do(STOP, b"")

    def flush(self) -> None:
        self._do(FLUSH, b"")

    def look(self, query: bytes, source: bytes) -> Looked:
        """What is replied to this query over TCP, and from where. Nobody is asked, and nothing counted."""
        self._send(LOOK, source + query)
        message, _ = self._wait(LOOKED)
        _, origin, name_n, _, generation, left = LOOKED_HEAD.unpack_from(message)
        reply_at = LOOKED_HEAD.size + name_n
        return Looked(origin, message[LOOKED_HEAD.size : reply_at], left, generation, message[reply_at:])

    def status(self) -> dict[str, int]:
        """Counters since its start, by name, and its state: connections, generation, names, the cache's size."""
        self._send(STATUS, b"")
        message, _ = self._wait(STATUS_IS)
        connections, *values = struct.unpack_from(f"<I{1 + len(STATE) + len(COUNTERS)}Q", message, 4)
        found = dict(zip(("generation", *STATE, *COUNTERS), values, strict=True))
        found["queries"] = sum(found[key] for key in QUERIES)
        found["cache_entries"] = found["entries_success"] + found["entries_denial"]
        return {"connections": connections, **found}

    def answer(
        self, question: Question, rcode: int, body: Sections, ttl: int, stale: int, *, generation: int, failed: bool
    ) -> None:
        """What another server said. ttl: seconds for which it is kept, 0: not; stale: for which longer it may be used
        when nobody answers. generation: of the table by which an alias was followed. Never waits."""
        lengths = (body.ends[0], body.ends[1] - body.ends[0], body.ends[2] - body.ends[1])
        flags = (FAILED if failed else 0) | (ALIAS if question.alias else 0)
        head = ANSWER_HEAD.pack(
            ANSWER, 0, generation, ttl, stale, question.kind, rcode, *body.counts, *lengths, flags, len(question.name)
        )
        with contextlib.suppress(BlockingIOError):
            self.connection.send(head + question.name + body.data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def ask(self) -> list[Question]:
        """The questions that have come, without waiting. EOFError when the program has gone."""
        while select.select([self.connection], [], [], 0)[0]:
            message, fds = self._receive()
            for fd in fds:
                os.close(fd)
            self._note(message)
        found, self._questions = self._questions, []
        return found

    def _note(self, message: bytes) -> None:
        if struct.unpack_from("<I", message)[0] == ASK:
            _, kind, flags, size, source = ASK_HEAD.unpack_from(message)
            name = message[ASK_HEAD.size : ASK_HEAD.size + size]
            self._questions.append(Question(name, kind, bool(flags & 1), bool(flags & 2), source))

    def _do(self, operation: int, body: bytes, fds: Sequence[int] = ()) -> int:
        self._send(operation, body, fds)
        while True:
            message, _ = self._wait(DONE)
            of, status, detail = struct.unpack_from("<II4xQ", message, 4)
            if of == operation:
                break
        if status:
            why = message[24:].split(b"\0", 1)[0].decode()
            raise Refused(f"pyrun-dns refused {ASKED[operation]} at byte {detail}: {why}")
        return int(detail)

    def _send(self, operation: int, body: bytes, fds: Sequence[int] = ()) -> None:
        try:
            # By the kernel: with a timeout of Python's, answer() would wait too, and it is for another thread.
            seconds, rest = divmod(PATIENCE_S, 1)
            timeval = struct.pack("@ll", int(seconds), int(rest * 1e6))
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
            send_message(self.connection, struct.pack("<II", operation, 0) + body, fds)
        except BlockingIOError:
            raise Ended(f"pyrun-dns has taken nothing for {PATIENCE_S:.0f} seconds")
        except OSError as error:
            if isinstance(error, ConnectionError) or error.errno == errno.EBADF:
                raise Ended("pyrun-dns has ended")
            raise PyrunError(f"pyrun-dns takes nothing: {reason(error)}")

    def _wait(self, operation: int) -> tuple[bytes, list[int]]:
        deadline = time.monotonic() + PATIENCE_S
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([self.connection], [], [], left)[0]:
                break
            try:
                message, fds = self._receive()
            except EOFError:
                raise Ended("pyrun-dns has ended")
            if struct.unpack_from("<I", message)[0] == operation:
                return message, fds
            self._note(message)
        raise Ended(f"pyrun-dns has said nothing for {PATIENCE_S:.0f} seconds")

    def _receive(self) -> tuple[bytes, list[int]]:
        try:
            message, fds = receive_message(self.connection, MESSAGE_MOST, 64)
        except ConnectionError:
            message, fds = b"", []
        if not message:
            raise EOFError
        return message, fds
