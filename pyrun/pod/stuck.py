"""Which processes of a cgroup no signal ends, since they wait in the kernel for a disk or a file server, and where."""

from __future__ import annotations

import os
from collections.abc import Iterator

MOST = 5


def collect_stuck(cgroup: str) -> list[str]:
    """Such as `cat (pid 12) in nfs_wait_client_init_complete`, MOST of them; those below are looked at, too."""
    found: list[str] = []
    for pid in _processes(cgroup):
        told = _told(pid)
        if told and len(found) < MOST:
            found.append(told)
    return found


def _processes(cgroup: str) -> Iterator[int]:
    for directory, _, _ in os.walk(cgroup):
        try:
            with open(f"{directory}/cgroup.procs", encoding="ascii") as file:
                yield from (int(line) for line in file.read().split())
        except OSError:  # it is gone, or threaded
            continue


def _told(pid: int) -> str:
    """proc_pid_stat(5): the state follows the name, in which anything may stand."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            name, _, rest = file.read().partition("(")[2].rpartition(") ")
        with open(f"/proc/{pid}/wchan", encoding="ascii", errors="replace") as file:
            where = file.read().strip()
    except OSError:
        return ""
    if not rest.startswith("D"):
        return ""
    return f"{name} (pid {pid})" + (f" in {where}" if where not in ("", "0") else "")
