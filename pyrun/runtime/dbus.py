"""D-Bus, as much of it as asking systemd takes: method calls with their replies, and signals, on one connection.

A library for it takes longer to import than a container takes to make, and tells the bus a uid of its own choice, which
is the wrong one in a user namespace; here the kernel tells it. What waits for nothing is sent without waiting: log-in,
Hello and the first call are one write. D-Bus Specification 0.41, "Message Protocol" and "Authentication Protocol".
"""

from __future__ import annotations

import posix
import time
from _struct import Struct

from .sockets import connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

CALL, RETURN, ERROR, SIGNAL = 1, 2, 3, 4
HEADER = "yyyyuua(yv)"  # byte order, type, flags, version, length of the body, serial, fields
PATH, INTERFACE, MEMBER, ERROR_NAME, REPLY_SERIAL, DESTINATION, SENDER, SIGNATURE, UNIX_FDS = range(1, 10)
LIMIT = 1 << 27
FIXED = {kind: Struct("<" + code) for kind, code in zip("ynqiuxtdb", "BhHiIqQdI", strict=True)}
FIXED["h"] = FIXED["u"]  # which of the descriptors that came
ALIGN = {**dict.fromkeys("ygv", 1), **dict.fromkeys("nq", 2), **dict.fromkeys("xtd({", 8)}  # all else: 4
LOGIN = b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n"
LOGIN_FDS = LOGIN.replace(b"BEGIN", b"NEGOTIATE_UNIX_FD\r\nBEGIN")
MOST_FDS = 16
LONGEST_S = 86_400.0  # of one wait for the kernel, which takes an int of milliseconds
BUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")


class BusError(Exception):
    """What the other side answered: an error's name, and its words."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


class Message:
    """One that came: its type, header fields by number, and body."""

    __slots__ = ("body", "fields", "type")

    def __init__(self, type: int, fields: dict[int, Any], body: tuple[Any, ...]) -> None:
        self.type = type
        self.fields = fields
        self.body = body


def user_address() -> str:
    """Where the user's bus is. conmon hands on XDG_RUNTIME_DIR only, as sd-bus has it."""
    given = posix.environ.get(b"DBUS_SESSION_BUS_ADDRESS", b"").decode("utf-8", "surrogateescape")
    if given:
        return given
    runtime = posix.environ.get(b"XDG_RUNTIME_DIR", b"").decode("utf-8", "surrogateescape")
    return f"unix:path={runtime or f'/run/user/{posix.getuid()}'}/bus"


def system_address() -> str:
    """Where the system's bus is."""
    given = posix.environ.get(b"DBUS_SYSTEM_BUS_ADDRESS", b"").decode("utf-8", "surrogateescape")
    return given or "unix:path=/run/dbus/system_bus_socket"


def socket_name(address: str) -> str:
    """The first unix socket of an address, an abstract one with a NUL in front. ValueError without any."""
    for one in address.split(";"):
        kind, _, words = one.partition(":")
        given = dict(word.partition("=")[::2] for word in words.split(","))
        if kind == "unix" and (name := given.get("path") or given.get("abstract")):
            head, *parts = name.split("%")
            raw = head.encode() + b"".join(bytes([int(part[:2], 16)]) + part[2:].encode() for part in parts)
            return ("" if "path" in given else "\0") + raw.decode("utf-8", "surrogateescape")
    raise ValueError(f"no unix socket in {address!r}")


class Bus:
    """A connection. OSError (TimeoutError among them) when the other side is gone or says nothing for `timeout` s.

    descriptors: take those that come with replies, and keep them here for the caller; close() closes what is left."""

    def __init__(self, address: str, timeout: float, *, descriptors: bool = False) -> None:
        import _socket

        self.timeout = timeout
        self.descriptors: list[int] | None = [] if descriptors else None
        self._came: list[int] = []  # of messages that are not whole yet
        self._pending = b""
        self._serial = 0
        self._replies: dict[int, Message] = {}
        self._signals: list[Message] = []
        self._outgoing = LOGIN_FDS if descriptors else LOGIN
        self._logged_in = False
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            self._socket.settimeout(timeout)
            connect(self._socket, socket_name(address).encode("utf-8", "surrogateescape"))
        except BaseException:
            self._socket.close()
            raise
        self.send(*BUS, "Hello")

    def close(self) -> None:
        self._socket.close()
        for fd in (*self._came, *(self.descriptors or ())):
            posix.close(fd)
        self._came, self.descriptors = [], []

    def hang_up(self) -> None:
        """From another thread: whoever waits for something here has a ConnectionError."""
        try:
            self._socket.shutdown(2)
        except OSError:  # it is closed, or the other side has
            pass

    def send(
        self, to: str, path: str, interface: str, member: str, signature: str = "", body: tuple[Any, ...] = ()
    ) -> int:
        """Queues a call, to leave with the next that is waited for. Its serial."""
        self._serial += 1
        content = bytearray()
        put_all(content, signature, body)
        fields = [(PATH, ("o", path)), (INTERFACE, ("s", interface)), (MEMBER, ("s", member)), (DESTINATION, ("s", to))]
        if signature:
            fields.append((SIGNATURE, ("g", signature)))
        message = bytearray()
        put_all(message, HEADER, (ord("l"), CALL, 0, 1, len(content), self._serial, fields))
        pad(message, 8)
        self._outgoing += message + content
        return self._serial

    def post(self, *words: Any) -> None:
        """A call as `send` takes it, whose reply nobody waits for, nor for the other side to take it."""
        self.send(*words)
        try:
            self._socket.settimeout(0)
            self._socket.send(self._outgoing)
        except OSError:
            pass
        self._outgoing = b""

    def call(self, *words: Any) -> tuple[Any, ...]:
        """A call as `send` takes it, and its reply's body. BusError with an error's."""
        return self.reply(self.send(*words))

    def reply(self, serial: int) -> tuple[Any, ...]:
        """Waits for the reply to a call. BusError with an error's."""
        last = time.monotonic() + self.timeout
        while serial not in self._replies:
            self._receive(last)
        reply = self._replies.pop(serial)
        if reply.type == ERROR:
            name = reply.fields.get(ERROR_NAME, "")
            raise BusError(name, str(reply.body[0]) if reply.body else name)
        return reply.body

    def signals(self, member: str, timeout: float, owner: str = "") -> Iterator[tuple[Any, ...]]:
        """The bodies of the signals of this name that came and come. TimeoutError after so many seconds. owner: only
        those of who has this name on the bus: a match rule keeps away what others send to all, not to us."""
        last = time.monotonic() + timeout
        while True:
            while self._signals:
                signal = self._signals.pop(0)
                if signal.fields.get(MEMBER) == member and (not owner or self._is_of(signal, owner)):
                    yield signal.body
            self._receive(last)

    def _is_of(self, signal: Message, owner: str) -> bool:
        try:
            return self.call(*BUS, "GetNameOwner", "s", (owner,)) == (signal.fields.get(SENDER),)
        except BusError:  # nobody has it
            return False

    def _receive(self, last: float) -> None:
        """Sends what waits to be sent, and takes in one message."""
        if self._outgoing:
            waiting, self._outgoing = self._outgoing, b""
            self._socket.sendall(waiting)
        if not self._logged_in:
            self._log_in(last)
        head = self._take(16, last, keep=True)
        if head[0] != ord("l"):
            raise ConnectionError("a message in big-endian")
        content, fields = (int.from_bytes(head[at : at + 4], "little") for at in (4, 12))
        size = 16 + fields + -fields % 8 + content
        if size > LIMIT:
            raise ConnectionError(f"a message of {size} bytes")
        data = self._take(size, last)
        try:
            message = parse(data, content)
        except (ValueError, IndexError, KeyError, ArithmeticError) as e:
            raise ConnectionError(f"a malformed message: {e or type(e).__name__}")
        if self.descriptors is not None:
            self._sort_descriptors(message)
        if message.type == SIGNAL:
            self._signals.append(message)
        elif REPLY_SERIAL in message.fields:
            self._replies[message.fields[REPLY_SERIAL]] = message

    def _sort_descriptors(self, message: Message) -> None:
        """Whoever is on the bus may send some; a reply is of whom we have asked."""
        count = message.fields.get(UNIX_FDS, 0)
        its, self._came = self._came[:count], self._came[count:]
        if message.type == RETURN and self.descriptors is not None:
            self.descriptors += its
            return
        for fd in its:
            posix.close(fd)

    def _log_in(self, last: float) -> None:
        """`DATA` for the empty one that we sent, then `OK` and the server's id, and what it says of descriptors."""
        for wanted in (b"DATA", b"OK ") if self.descriptors is None else (b"DATA", b"OK ", b"AGREE_UNIX_FD"):
            while b"\r\n" not in self._pending:
                self._fill(last)
            line, self._pending = self._pending.split(b"\r\n", 1)
            if not line.startswith(wanted):
                raise ConnectionError(f"the bus refuses us: {line[:80].decode('ascii', 'replace')}")
        self._logged_in = True

    def _take(self, size: int, last: float, *, keep: bool = False) -> bytes:
        while len(self._pending) < size:
            self._fill(last)
        data = self._pending[:size]
        if not keep:
            self._pending = self._pending[size:]
        return data

    def _fill(self, last: float) -> None:
        left = last - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._socket.settimeout(min(left, LONGEST_S))
        try:
            data = self._read()
        except TimeoutError:
            if left > LONGEST_S:
                return
            raise
        if not data:
            raise ConnectionResetError("the bus closed the connection")
        self._pending += data

    def _read(self) -> bytes:
        if self.descriptors is None:
            return self._socket.recv(65536)
        from ..rights import receive_message

        data, fds = receive_message(self._socket, 65536, MOST_FDS)  # type: ignore[arg-type]
        self._came += fds
        return data


# --- values to bytes and back; offsets count from the message's start, and a body begins at a multiple of 8 -----------


def types_of(signature: str) -> Iterator[str]:
    """The single complete types of a signature."""
    at = 0
    while at < len(signature):
        start = at
        while signature[at] == "a":
            at += 1
        if signature[at] in "({":
            depth = 0
            while True:
                depth += (signature[at] in "({") - (signature[at] in ")}")
                if not depth:
                    break
                at += 1
        at += 1
        yield signature[start:at]


def pad(out: bytearray, to: int) -> None:
    out += bytes(-len(out) % to)


def put_all(out: bytearray, signature: str, values: Any) -> None:
    """Appends values of these types."""
    for kind, value in zip(types_of(signature), values, strict=True):
        put(out, kind, value)


def put(out: bytearray, kind: str, value: Any) -> None:
    """Appends one value. A variant is (type, value), a dict a list of pairs."""
    first = kind[0]
    pad(out, ALIGN.get(first, 4))
    if first in FIXED:
        out += FIXED[first].pack(value)
    elif first in "sog":
        text = value.encode("utf-8", "surrogateescape")
        out += len(text).to_bytes(1 if first == "g" else 4, "little") + text + b"\0"
    elif first == "v":
        put(out, "g", value[0])
        put(out, *value)
    elif first == "a":
        at = len(out)
        out += bytes(4)
        pad(out, ALIGN.get(kind[1], 4))
        start = len(out)
        for entry in value:
            put(out, kind[1:], entry)
        out[at : at + 4] = (len(out) - start).to_bytes(4, "little")
    else:
        put_all(out, kind[1:-1], value)


def parse(data: bytes, content: int) -> Message:
    """A whole message, its body of `content` bytes."""
    (_, type, _, _, _, _, rows), _ = get_all(data, 0, HEADER)
    fields = {number: value for number, (_, value) in rows}
    body, _ = get_all(data, len(data) - content, fields.get(SIGNATURE, ""))
    return Message(type, fields, body)


def get_all(data: bytes, at: int, signature: str) -> tuple[tuple[Any, ...], int]:
    """Values of these types, and where they end."""
    values = []
    for kind in types_of(signature):
        value, at = get(data, at, kind)
        values.append(value)
    return tuple(values), at


def get(data: bytes, at: int, kind: str) -> tuple[Any, int]:
    """A value of this type, and where it ends."""
    first = kind[0]
    at += -at % ALIGN.get(first, 4)
    if first in FIXED:
        end = at + FIXED[first].size
        if end > len(data):
            raise ValueError("it is cut off")
        return FIXED[first].unpack(data[at:end])[0], end
    if first in "sog":
        size, at = get(data, at, "y" if first == "g" else "u")
        if at + size >= len(data):
            raise ValueError("it is cut off")
        return data[at : at + size].decode("utf-8", "replace"), at + size + 1
    if first == "v":
        inner, at = get(data, at, "g")
        (value,), at = get_all(data, at, inner)
        return (inner, value), at
    if first != "a":
        return get_all(data, at, kind[1:-1])
    size, at = get(data, at, "u")
    at += -at % ALIGN.get(kind[1], 4)
    values, end = [], at + size
    while at < end:
        value, at = get(data, at, kind[1:])
        values.append(value)
    return values, at
