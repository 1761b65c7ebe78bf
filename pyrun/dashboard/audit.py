"""What was done by whom: a line of JSON for each login, terminal, change and token, be it granted or refused."""

from __future__ import annotations

import json
import os
import threading
import time
from typing import Any

from .guard import Who

LONGEST = 4 << 20
SHOWN = 64 * 1024


class Audit:
    """state: the directory. At LONGEST bytes the file becomes audit.log.1, and the one before that goes."""

    def __init__(self, state: str) -> None:
        self._path = os.path.join(state, "audit.log")
        self._lock = threading.Lock()

    def note(self, who: Who | None, action: str, of: str, outcome: str) -> None:
        """OSError where it can't be written: what must be audited is then not done."""
        line = {"time": time.time_ns(), "who": who.name if who else "", "role": who.role if who else ""}
        line |= {"action": action, "of": of[:1000], "outcome": outcome[:1000]}
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        with self._lock:
            fd = os.open(self._path, flags, 0o600)
            try:
                os.write(fd, json.dumps(line).encode() + b"\n")
                full = os.fstat(fd).st_size > LONGEST
            finally:
                os.close(fd)
            if full:
                os.rename(self._path, f"{self._path}.1")

    def newest(self) -> list[dict[str, Any]]:
        """The newest first."""
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return []
        with open(fd, "rb") as file:
            size = os.fstat(fd).st_size
            file.seek(max(0, size - SHOWN))
            lines = file.read().splitlines()[1 if size > SHOWN else 0 :]
        return [json.loads(line) for line in reversed(lines) if line]
