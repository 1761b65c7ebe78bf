"""An HTTP client for a daemon's own unix socket."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket

from pyrun.errors import Unavailable, reason

PATIENCE_S = 10.0


def request(
    path: str, target: str, *, method: str = "GET", body: bytes | None = None, patience: float = PATIENCE_S, hint: str
) -> tuple[int, bytes]:
    """(status, body) of the answer. path: the socket's. Unavailable, with the hint, where nobody answers."""
    connection = http.client.HTTPConnection("localhost", timeout=patience)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.settimeout(patience)
    try:
        connection.sock.connect(os.fspath(path))
        with contextlib.suppress(BrokenPipeError):  # it may have answered before it had all
            connection.request(method, target, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as error:
        told = reason(error) if isinstance(error, OSError) else str(error)
        raise Unavailable(f"{path}: {told}", hint=hint) from None
    finally:
        connection.close()
