"""Associations of SCTP whose messages have a stream, a payload protocol and an order, by one-to-one sockets (RFC 6458).

Python's socket module knows no more of SCTP than its number.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable
from typing import NamedTuple

from tests.support.proxy.answers import text_of
from tests.support.serving import Serving, shut_down

SCTP = socket.IPPROTO_SCTP
INITMSG, STATUS, PARTIAL_DELIVERY_POINT, RECVRCVINFO = 2, 14, 19, 32  # socket options
PART = 1 << 16  # bytes of a message after which its parts are given out
SO_SNDBUFFORCE, ROOM = 32, 4 << 20  # a message may be as large as the buffer
SNDINFO, RCVINFO = 2, 3  # of messages
UNORDERED = 1
PATIENCE_S = 60.0
TICK_S = 0.2  # in which a server that is to end sees it: shutdown() wakes no accept() of SCTP
_SNDINFO = struct.Struct("=HHIII")
_RCVINFO = struct.Struct("=HHHxxI12xI")
Opener = Callable[[socket.AddressFamily], socket.socket]


class Message(NamedTuple):
    data: bytes
    stream: int = 0
    protocol: int = 0  # the payload's, as the kernel passes it on
    unordered: bool = False


def open_here(family: socket.AddressFamily) -> socket.socket:
    return socket.socket(family, socket.SOCK_STREAM, SCTP)


class Association:
    def __init__(self, s: socket.socket) -> None:
        s.setsockopt(SCTP, RECVRCVINFO, 1)
        s.setsockopt(SCTP, PARTIAL_DELIVERY_POINT, PART)
        s.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, ROOM)
        s.settimeout(PATIENCE_S)
        self.socket = s

    @classmethod
    def connect(
        cls,
        address: str,
        port: int,
        opener: Opener = open_here,
        *,
        source: str = "",
        out: int = 10,
        most_in: int = 10,
    ) -> Association:
        """out, most_in: how many streams are asked for, and taken."""
        s = opener(socket.AF_INET6 if ":" in address else socket.AF_INET)
        try:
            s.setsockopt(SCTP, INITMSG, struct.pack("=HHHH", out, most_in, 0, 0))
            s.settimeout(PATIENCE_S)
            if source:
                s.bind((source, 0))
            s.connect((address, port))
            return cls(s)
        except BaseException:
            s.close()
            raise

    def send(self, m: Message) -> None:
        info = _SNDINFO.pack(m.stream, UNORDERED if m.unordered else 0, m.protocol, 0, 0)
        self.socket.sendmsg([m.data], [(SCTP, SNDINFO, info)])

    def receive(self) -> Message | None:
        """A whole one, however many parts the kernel makes of it; None: the end."""
        parts: list[bytes] = []
        while True:
            data, control, flags, _ = self.socket.recvmsg(1 << 16, 256)
            if not data:
                assert not parts
                return None
            parts.append(data)
            if flags & socket.MSG_EOR:
                ((_, kind, raw),) = control
                assert kind == RCVINFO
                stream, _, how, protocol, _ = _RCVINFO.unpack(raw)
                return Message(b"".join(parts), stream, protocol, bool(how & UNORDERED))

    def ask(self, m: Message) -> Message | None:
        self.send(m)
        return self.receive()

    def streams(self) -> tuple[int, int]:
        """How many are agreed on: those that come in, and those that go out."""
        status = self.socket.getsockopt(SCTP, STATUS, 176)
        incoming, outgoing = struct.unpack_from("=HH", status, 16)
        return incoming, outgoing

    def abort(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Association:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Server:
    """Tells who asks ("who") its address and the caller's, and gives everything else back as it came. accepted: the
    associations that there were."""

    def __init__(self, address: str, port: int, opener: Opener = open_here, *, most_in: int = 64) -> None:
        self.name = text_of(address, port)
        self.address, self.port = address, port
        self.accepted: list[Association] = []
        self.ends: list[BaseException | None] = []  # how each ended: None, as it should
        self.echoes = True
        self._socket = opener(socket.AF_INET6 if ":" in address else socket.AF_INET)
        self._socket.setsockopt(SCTP, INITMSG, struct.pack("=HHHH", 64, most_in, 0, 0))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((address, port))
        self._socket.listen(64)
        self._socket.settimeout(TICK_S)
        self._ends = False
        self._serving = Serving()
        self._serving.run(self._serve)

    def _serve(self) -> None:
        while not self._ends:
            with contextlib.suppress(TimeoutError):
                made, peer = self._socket.accept()
                one = Association(made)
                self.accepted.append(one)
                if self.echoes:
                    self._serving.run(self._answer, one, peer[0])

    def _answer(self, one: Association, peer: str) -> None:
        try:
            while message := one.receive():
                who = message.data == b"who"
                one.send(message._replace(data=f"{self.name} {peer}".encode()) if who else message)
            self.ends.append(None)
        except OSError as error:
            self.ends.append(error)
        finally:
            one.close()

    def close(self) -> None:
        self._ends = True
        for one in self.accepted:
            shut_down(one.socket)
        self._serving.end()
        self._socket.close()
        for one in self.accepted:
            one.close()
