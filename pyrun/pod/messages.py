"""The supervisor's messages as bytes: the Python side of cffi_build/pod/message.h. Pure.

A connection carries one request; descriptors come along by SCM_RIGHTS. tests/unit/test_pod_messages.py holds the sizes
and numbers here against the C side.
"""

from __future__ import annotations

from struct import Struct

MAGIC = 0x31444F50
NAME, MESSAGE, LONGEST_NAME = 72, 4088, 64
HELLO, CREATE, EXEC, LOG, ATTACH, STDIN, RESIZE, DROP, END, EVENTS, GO = range(1, 12)
DONE, RESULT, KNOWN, EXIT, YIELD = range(32, 37)
TTY, OPEN_STDIN, STDIN_ONCE, HAS_LOG = 1, 2, 4, 8
# From this bit of the flags on: KiB of log a second; 0: as much as there is.
LOG_RATE = 8
TRACES = 1  # of KNOWN's value: traced plans can be carried out
TOLD = 30
MAKING, LIVE, ENDED = 1, 2, 3
REQUEST = Struct(f"<4I{NAME}s")
REPLY = Struct("<2IiIqiI")
KNOWN_ONE = Struct(f"<{NAME}sIiQiI4Q")
RESULT_HEAD = Struct("<i3I5i i2I")
EXIT_RECORD = Struct("<8sii3QII")
EXIT_MAGIC = b"PYEXIT1\0"


class Known:
    """What the supervisor knows of a container: ctr (its name), state (MAKING, LIVE, ENDED), pid and start (clock ticks
    since boot; 0 while it is made), flags; status (a wait status), ended_ns (since 1970), oom_kills once it has ended;
    log_bytes written to its log, lost_bytes of it that could not be or were
    too much."""

    __slots__ = ("ctr", "ended_ns", "flags", "log_bytes", "lost_bytes", "oom_kills", "pid", "start", "state", "status")

    def __init__(self, ctr: str, state: int, pid: int, start: int, status: int, ended_ns: int, oom_kills: int) -> None:
        self.ctr = ctr
        self.state = state
        self.pid = pid
        self.start = start
        self.status = status
        self.ended_ns = ended_ns
        self.oom_kills = oom_kills
        self.flags = self.log_bytes = self.lost_bytes = 0

    @property
    def exit_code(self) -> int:
        """As a shell has it: 128 + n where signal n ended it."""
        return exit_code(self.status)


def exit_code(status: int) -> int:
    """Of a wait status."""
    return 128 + (status & 0x7F) if status & 0x7F else status >> 8 & 0xFF


def request(kind: int, ctr: str = "", flags: int = 0, value: int = 0, path: str = "") -> bytes:
    """ValueError where the name or the path is too long for a message."""
    name, tail = ctr.encode(), path.encode("utf-8", "surrogateescape")
    if len(name) > LONGEST_NAME or REQUEST.size + len(tail) >= MESSAGE:
        raise ValueError("too long for a message to the supervisor")
    return REQUEST.pack(MAGIC, kind, flags, value, name) + tail


def name_of(data: bytes) -> str:
    """The container that a request is about, or ""."""
    name: bytes = REQUEST.unpack_from(data)[4]
    return name.rstrip(b"\0").decode()


class Reply:
    """kind, err (an errno, 0: none), count, value, pid, and the bytes behind them."""

    __slots__ = ("body", "count", "err", "kind", "pid", "value")

    def __init__(self, data: bytes) -> None:
        """ValueError where it is none."""
        if len(data) < REPLY.size:
            raise ValueError("too short")
        magic, self.kind, self.err, self.count, self.value, self.pid, _ = REPLY.unpack_from(data)
        self.body = data[REPLY.size :]
        if magic != MAGIC:
            raise ValueError("not of this version")

    def known(self) -> list[Known]:
        """Of KNOWN and EXIT."""
        found = []
        for at in range(0, self.count * KNOWN_ONE.size, KNOWN_ONE.size):
            name, state, pid, start, status, flags, ended, oom, logged, lost = KNOWN_ONE.unpack_from(self.body, at)
            one = Known(name.rstrip(b"\0").decode(), state, pid, start, status, ended, oom)
            one.flags, one.log_bytes, one.lost_bytes = flags, logged, lost
            found.append(one)
        return found


class Result:
    """How a plan went, with the names of C's px_result; text: what a hook, a helper or a file system said."""

    __slots__ = (
        "child_status",
        "err",
        "lane",
        "pid",
        "stage1",
        "status",
        "step",
        "substep",
        "text",
        "undo_err",
        "undo_step",
        "yielded",
    )

    def __init__(self, body: bytes) -> None:
        """ValueError where it is none."""
        if len(body) < RESULT_HEAD.size:
            raise ValueError("too short")
        (
            self.status,
            self.lane,
            self.step,
            self.substep,
            self.err,
            self.pid,
            self.stage1,
            self.yielded,
            self.child_status,
            self.undo_err,
            self.undo_step,
            length,
        ) = RESULT_HEAD.unpack_from(body)
        self.text = body[RESULT_HEAD.size : RESULT_HEAD.size + length].decode("utf-8", "replace")


def read_exit(data: bytes, ctr: str) -> Known | None:
    """Of the bytes of exits/CTR; None where the container has not ended, or the file is not whole."""
    if len(data) != EXIT_RECORD.size:
        return None
    magic, pid, status, start, ended, oom, _, total = EXIT_RECORD.unpack(data)
    if magic != EXIT_MAGIC or total != checksum(data[:-4]):
        return None
    return Known(ctr, ENDED, pid, start, status, ended, oom)


def checksum(data: bytes) -> int:
    """FNV-1a, 32 bits."""
    total = 2166136261
    for byte in data:
        total = (total ^ byte) * 16777619 & 0xFFFFFFFF
    return total
