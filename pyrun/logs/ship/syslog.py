"""Syslog (RFC 5424) over TCP or TLS, each message with its length before it (RFC 6587, 3.4.1; RFC 5425).

The protocol has no answers. A batch counts as sent once the peer's kernel has all of it; what its program has not read
by then is lost with it.
"""

from __future__ import annotations

import fcntl
import select
import socket
import ssl
import struct
import termios
import time
from urllib.parse import parse_qsl, urlsplit

from ...errors import InvalidArgument, reason
from ...tls import load_certificate
from ..show import time_text
from .record import ERROR, INFO, Again, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

CONNECT_S, SEND_S = 10.0, 60.0
POLL_S = 0.005
# A client knows that its handshake is done before the server has judged its certificate (RFC 8446, 4.4.4); for so long
# it is waited whether the server hangs up, so that no line goes to one that does not take it.
JUDGED_S = 1.0
PORTS = {"tcp": 514, "tls": 6514}
# The facility.
USER = 1 << 3
# The identifier that RFC 5612 keeps for documentation: pyrun has no number of its own.
STRUCTURED = "pod@32473"


def encode(record: Record) -> bytes:
    """A message with its length. Words are cut to what the RFC allows; a line's own bytes stay."""
    c = record.container
    priority = USER | (ERROR if record.line.stream == "stderr" else INFO)
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
    """url: tcp://HOST:PORT, or tls://HOST:PORT?ca=FILE&cert=FILE&key=FILE. ca: who signed the server's certificate, and
    not one of the system's; cert, key: the client's (PEM)."""

    def __init__(self, url: str) -> None:
        self._url = url
        try:
            place = urlsplit(url)
            port = place.port or PORTS[place.scheme]
            given = dict(parse_qsl(place.query, strict_parsing=True, keep_blank_values=True) if place.query else ())
        except ValueError as error:
            raise self._wrong(str(error)) from None
        if not place.hostname or place.path not in ("", "/") or place.username is not None:
            raise self._wrong("no place")
        self._place = (place.hostname, port)
        self._tls = self._context(given) if place.scheme == "tls" else None
        if unknown := [name for name in given if self._tls is None or name not in ("ca", "cert", "key")]:
            raise self._wrong(f"{place.scheme} has no {unknown[0]}")
        self._socket: socket.socket | None = None

    def _wrong(self, text: str) -> InvalidArgument:
        return InvalidArgument(
            f"--ship syslog+{self._url}: {text}", hint="syslog+tcp://HOST:PORT, syslog+tls://HOST:PORT?ca=FILE"
        )

    def _context(self, given: dict[str, str]) -> ssl.SSLContext:
        if "key" in given and "cert" not in given:
            raise self._wrong("a key without a certificate")
        file = given.get("ca", "")
        try:
            context = ssl.create_default_context(cafile=file or None)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if file := given.get("cert", ""):
                load_certificate(context, file, given.get("key"))
        except InvalidArgument as error:
            raise self._wrong(str(error)) from None
        except OSError as error:
            text = str(error) if isinstance(error, ssl.SSLError) else reason(error)
            raise self._wrong(f"{file}: {text}") from None
        return context

    def send(self, records: Sequence[Record]) -> None:
        """Returns when the peer's machine has them. Again."""
        try:
            if self._socket is None or _is_closed(self._socket):
                self.close()
                self._socket = self._connect()
            self._socket.sendall(b"".join(map(encode, records)))
            _wait_until_taken(self._socket)
        except OSError as error:
            self.close()
            raise Again(str(error)) from None

    def _connect(self) -> socket.socket:
        plain = socket.create_connection(self._place, CONNECT_S)
        if self._tls is None:
            plain.settimeout(SEND_S)
            return plain
        try:
            peer = self._tls.wrap_socket(plain, server_hostname=self._place[0])
        except BaseException:
            plain.close()
            raise
        try:
            peer.settimeout(SEND_S)
            last = time.monotonic() + JUDGED_S
            while (left := last - time.monotonic()) > 0 and select.select([peer], [], [], left)[0]:
                if _is_closed(peer):
                    raise ConnectionResetError("the peer has closed the connection: it may want another certificate")
        except BaseException:
            peer.close()
            raise
        return peer

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _is_closed(peer: socket.socket) -> bool:
    """It says nothing, so what there is to read is its end; but for what TLS needs itself."""
    if not isinstance(peer, ssl.SSLSocket):
        return bool(select.select([peer], [], [], 0)[0])
    peer.settimeout(0)
    try:
        while peer.recv(4096):
            pass
        return True
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return False
    finally:
        peer.settimeout(SEND_S)


def _wait_until_taken(peer: socket.socket) -> None:
    """Until nothing waits to be acknowledged."""
    last = time.monotonic() + SEND_S
    while struct.unpack("i", fcntl.ioctl(peer, termios.TIOCOUTQ, b"\0" * 4))[0]:
        if time.monotonic() > last:
            raise TimeoutError("the peer takes nothing")
        time.sleep(POLL_S)
    if _is_closed(peer):
        raise ConnectionResetError("the peer has closed the connection")
