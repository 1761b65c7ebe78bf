"""What a pod uses, as eviction ranks it: read when the node is short, and not before."""

from __future__ import annotations

import os
from collections.abc import Iterable

from ...pod.stats import Written, read_cgroup, walk

PAGE = os.sysconf("SC_PAGE_SIZE")


def container_usage(cgroup: str | None, written: str) -> dict[str, int]:
    """cgroup: its path; None: it does not run. written: the directory of what it has written. A tree beyond the walk's
    bounds, and a cgroup that is gone, is not known."""
    found = _disk([walk(written)])
    reading = read_cgroup(cgroup) if cgroup else None
    if cgroup and reading is not None:
        processes = _processes(cgroup)
        found["pids"] = reading.threads if reading.threads is not None else len(processes)
        memory = reading.working_set
        # Where the node lacks the controller, what the processes have themselves.
        found["memory"] = memory if memory is not None else sum(_own_memory(pid) for pid in processes)
    return found


def directory_usage(paths: Iterable[str]) -> dict[str, int]:
    """Of volumes and logs."""
    return _disk([walk(path) for path in paths if os.path.lexists(path)])


def total(parts: Iterable[dict[str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for part in parts:
        for name, count in part.items():
            found[name] = found.get(name, 0) + count
    return found


def _disk(found: list[Written | None]) -> dict[str, int]:
    known = [one for one in found if one is not None]
    return {"ephemeral-storage": sum(one.bytes for one in known), "inodes": sum(one.inodes for one in known)}


def _processes(cgroup: str) -> list[int]:
    found: list[int] = []
    for directory, _, _ in os.walk(cgroup):
        try:
            with open(f"{directory}/cgroup.procs", encoding="ascii") as file:
                found += [int(line) for line in file]
        except OSError:
            continue
    return found


def _own_memory(pid: int) -> int:
    """proc_pid_statm(5): resident, without what files have."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            words = file.read().split()
    except OSError:
        return 0
    return (int(words[1]) - int(words[2])) * PAGE
