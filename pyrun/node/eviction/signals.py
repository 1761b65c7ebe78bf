"""What the node has left, read anew: a file and two statvfs, some tens of microseconds."""

from __future__ import annotations

import os

from .plan import Signal


def collect_signals(nodefs: str, imagefs: str) -> dict[str, Signal]:
    """nodefs: a directory on the file system of pods' volumes and logs; imagefs: of images and what containers write.
    What can't be read is left out. memory.available is MemAvailable: ≠ a kubelet, for which page cache that the kernel
    could take back at once counts as used (kubernetes#43916)."""
    found = {}
    for name, path in (("nodefs", nodefs), ("imagefs", imagefs)):
        try:
            at = os.statvfs(path)
        except OSError:
            continue
        found[f"{name}.available"] = Signal(at.f_bavail * at.f_frsize, at.f_blocks * at.f_frsize)
        if at.f_files:  # btrfs has none
            found[f"{name}.inodesFree"] = Signal(at.f_favail, at.f_files)
    memory = {line.partition(":")[0]: line.split() for line in _text("/proc/meminfo").splitlines()}
    if "MemAvailable" in memory and "MemTotal" in memory:
        available, total = (int(memory[name][1]) << 10 for name in ("MemAvailable", "MemTotal"))
        found["memory.available"] = Signal(available, total)
    most = [int(text) for name in ("pid_max", "threads-max") if (text := _text(f"/proc/sys/kernel/{name}").strip())]
    there = _text("/proc/loadavg").split()
    if most and len(there) > 3:
        capacity = min(most)
        found["pid.available"] = Signal(max(0, capacity - int(there[3].partition("/")[2])), capacity)
    return found


def _text(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
