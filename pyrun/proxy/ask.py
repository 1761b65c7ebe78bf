"""What a running `pyrun proxy` answers on its own socket."""

from __future__ import annotations

import json
import os
from typing import Any

from ..errors import Unavailable
from ..http.unix import request

HINT = "does `pyrun proxy run` run, and is --state the same?"


def ask(state: str, path: str) -> dict[str, Any]:
    """The answer to a GET. Unavailable where nobody answers."""
    where = os.path.join(state, "proxy.sock")
    status, data = request(where, path, hint=HINT)
    if status != 200:
        raise Unavailable(f"{where}: {data.decode(errors='replace').strip()}", hint="what does its log say?")
    try:
        found: dict[str, Any] = json.loads(data)
    except ValueError as error:
        raise Unavailable(f"{where}: {error}", hint=HINT) from None
    return found
