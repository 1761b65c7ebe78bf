"""Syslog (RFC 5424) over TCP, each message with its length before it (RFC 6587, 3.4.1).

The protocol has no answers. A batch counts as sent once the peer's kernel has all of it; what its program has not read
by then is lost with it.
"""

from __future__ import annotations

import fcntl
import select
import socket
import struct
import termios
import time
from urllib.parse import urlsplit

from ...errors import InvalidArgument
from ..show import time_text
from .record import Again, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

CONNECT_S, SEND_S = 10.0, 60.0
POLL_S = 0.005
# Facility "user", and the severity of a stream.
USER, SEVERITIES = 1 << 3, {"stderr": 3}
INFO = 6
# The identifier that RFC 5612 keeps for documentation: pyrun has no number of its own.
STRUCTURED = "pod@32473"


def encode(record: Record) -> bytes:
    """A message with its length. Words are cut to what the RFC allows; a line's own bytes stay."""
    c = record.container
    priority = USER | SEVERITIES.get(record.line.stream, INFO)
    at = time_text(record.line.time)
    head = f"<{priority}>1 {at[:26]}Z {_word(record.node, 255)} {_word(c.pod, 48)} - {_word(c.name, 32)} "
    values = " ".join(f'{name}="{_quoted(value)}"' for name, value in record.labels)
    message = f"{head}[{STRUCTURED} {values}] ".encode() + record.line.content
    return b"%d " % len(message) + message


def _word(text: str, most: int) -> str:
    return "".join(c for c in text if "!" <= c <= "~")[:most] or "-"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")


class SyslogTarget:
    """url: tcp://HOST:PORT."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        try:
            self._place = (place.hostname or "", place.port or 514)
        except ValueError as error:
            raise InvalidArgument(f"--ship syslog+{url}: {error}") from None
        self._socket: socket.socket | None = None

    def send(self, records: Sequence[Record]) -> None:
        """Returns when the peer's machine has them. Again."""
        try:
            if self._socket is None or _is_closed(self._socket):
                self.close()
                self._socket = socket.create_connection(self._place, CONNECT_S)
                self._socket.settimeout(SEND_S)
            self._socket.sendall(b"".join(map(encode, records)))
            _wait_until_taken(self._socket)
        except OSError as error:
            self.close()
            raise Again(str(error)) from None

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _is_closed(peer: socket.socket) -> bool:
    return bool(select.select([peer], [], [], 0)[0])  # it says nothing, so this is its end


def _wait_until_taken(peer: socket.socket) -> None:
    """Until nothing waits to be acknowledged."""
    last = time.monotonic() + SEND_S
    while struct.unpack("i", fcntl.ioctl(peer, termios.TIOCOUTQ, b"\0" * 4))[0]:
        if time.monotonic() > last:
            raise TimeoutError("the peer takes nothing")
        time.sleep(POLL_S)
    if _is_closed(peer):
        raise ConnectionResetError("the peer has closed the connection")
