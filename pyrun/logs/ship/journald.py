"""systemd's journal, by its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): a datagram of fields for each line.

A line counts as sent once it is in the socket's queue, which systemd holds over restarts of journald. journald tells
nobody what it leaves out: by its own rate limit, by default 10,000 lines in 30 s of one unit (LogRateLimitBurst=).
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import re
import socket
from urllib.parse import unquote, urlsplit

from ...errors import InvalidArgument
from ..show import time_text
from .record import ERROR, INFO, Again, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

SEND_S = 60.0
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
_PLAIN = re.compile(rb"[^\x00-\x09\x0b-\x1f\n]*")


def encode(record: Record) -> bytes:
    """Its fields. Docker's names, where it has one for the same; the journal has its own time, when a line came."""
    c, line = record.container, record.line
    fields = [
        ("PRIORITY", b"%d" % (ERROR if line.stream == "stderr" else INFO)),
        ("SYSLOG_IDENTIFIER", c.name.encode()),
        ("SYSLOG_TIMESTAMP", time_text(line.time).encode()),
        ("CONTAINER_NAME", c.name.encode()),
        ("POD_NAMESPACE", c.namespace.encode()),
        ("POD_NAME", c.pod.encode()),
        ("POD_UID", c.uid.encode()),
        ("LOG_STREAM", (line.stream or "stdout").encode()),
        ("MESSAGE", line.content),
    ]
    if line.cut:
        fields.append(("CONTAINER_PARTIAL_MESSAGE", b"true"))
    return b"".join(_field(name, value) for name, value in fields)


def _field(name: str, value: bytes) -> bytes:
    """As text, or with its length before it where it may have anything."""
    if _PLAIN.fullmatch(value):
        return name.encode() + b"=" + value + b"\n"
    return name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"


class JournaldTarget:
    """url: unix:///run/systemd/journal/socket."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        if place.netloc or place.query or place.fragment or len(place.path) < 2:
            raise InvalidArgument(
                f"--ship journald+{url}: no socket", hint="journald+unix:///run/systemd/journal/socket"
            )
        self._path = unquote(place.path)
        self._socket: socket.socket | None = None
        # Of a batch that is tried again, what is in the queue already is not sent twice.
        self._batch: Sequence[Record] = ()
        self._sent = 0

    def send(self, records: Sequence[Record]) -> None:
        """Returns when all are in the queue. Again."""
        if records is not self._batch:
            self._batch, self._sent = records, 0
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._socket.settimeout(SEND_S)
                self._socket.connect(self._path)
            for record in records[self._sent :]:
                _send(self._socket, encode(record))
                self._sent += 1
        except OSError as error:
            self.close()
            raise Again(f"{self._path}: {error}") from None

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _send(to: socket.socket, data: bytes) -> None:
    try:
        to.send(data)
    except OSError as error:
        if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
            raise
        fd = os.memfd_create("pyrun-log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
            to.sendmsg([], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
        finally:
            os.close(fd)
