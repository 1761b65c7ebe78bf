"""What a running `pyrun node run` answers on its socket."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, urlencode

from ...errors import NotFound, PyrunError
from ...http.unix import PATIENCE_S, request

HINT = "does `pyrun node run` run, and is --state the same?"


def ask(
    state: str, *path: str, method: str = "GET", body: Any = None, patience: float = PATIENCE_S, **query: str | None
) -> Any:
    """The answer, decoded. query: what is None is left out. NotFound and PyrunError as the agent says, Unavailable."""
    words = {name: value for name, value in query.items() if value is not None}
    target = "/" + "/".join(quote(part, safe="") for part in path) + (f"?{urlencode(words)}" if words else "")
    data = None if body is None else json.dumps(body).encode()
    status, answer = request(f"{state}/node.sock", target, method=method, body=data, patience=patience, hint=HINT)
    if status == 200:
        return json.loads(answer)
    text, _, hint = answer.decode(errors="replace").strip().partition("\n")
    raise (NotFound if status == 404 else PyrunError)(text, hint=hint.strip().removeprefix("hint: ") or None)
