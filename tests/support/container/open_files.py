"""What a process has open, read while it goes on opening and closing."""

from __future__ import annotations

import os
from contextlib import suppress


def open_files(pid: int) -> dict[int, str]:
    """{descriptor: what it leads to, as proc_pid_fd(5) has it}; one that was closed meanwhile is left out. Raises
    FileNotFoundError or PermissionError if the process is gone."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
    return found
