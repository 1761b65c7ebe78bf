"""What a running `pyrun proxy` answers on its own socket."""

from __future__ import annotations

import http.client
import json
import os
import socket
from typing import Any

from ..errors import Unavailable, reason

PATIENCE_S = 10.0


def ask(state: str, path: str) -> dict[str, Any]:
    """The answer to a GET. Unavailable where nobody answers."""
    where = os.path.join(state, "proxy.sock")
    connection = http.client.HTTPConnection("localhost", timeout=PATIENCE_S)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.settimeout(PATIENCE_S)
    try:
        connection.sock.connect(where)
        connection.request("GET", path)
        answer = connection.getresponse()
        data = answer.read()
        if answer.status != 200:
            raise Unavailable(f"{where}: {data.decode(errors='replace').strip()}", hint="what does its log say?")
        found: dict[str, Any] = json.loads(data)
        return found
    except (OSError, http.client.HTTPException, ValueError) as error:
        told = reason(error) if isinstance(error, OSError) else str(error)
        raise Unavailable(f"{where}: {told}", hint="does `pyrun proxy run` run, and is --state the same?") from None
    finally:
        connection.close()
