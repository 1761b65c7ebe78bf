"""The counters of a cgroup v2, read when somebody asks.

All files are read beneath one descriptor of the cgroup, so they are of one cgroup whatever happens to its name. A value
that the kernel does not give, as it has no such controller or is too old, is None: a zero would be believed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

FILE_BYTES = 1 << 18  # io.stat has a line a device
PROCESSES = 1024  # whose open files are counted
OPEN_FILES = 1 << 16
_WEIGHED = ("cpu", "memory", "io")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Pressure:
    """A line of PSI. total in µs; the others in percent."""

    total: int
    avg10: float
    avg60: float
    avg300: float


@dataclass(slots=True)
class Reading:
    """cpu, memory, memory_events: the keyed files, in the kernel's words and units. memory_max, swap_max: None where
    there is no limit, too. devices: "major:minor" → its counters. pressure: resource → "some"/"full" → Pressure.
    threads: pids.current. hugetlb: page size → bytes."""

    cpu: dict[str, int] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    memory_events: dict[str, int] = field(default_factory=dict)
    memory_current: int | None = None
    memory_max: int | None = None
    memory_peak: int | None = None
    swap_current: int | None = None
    swap_max: int | None = None
    threads: int | None = None
    threads_max: int | None = None
    devices: dict[str, dict[str, int]] = field(default_factory=dict)
    pressure: dict[str, dict[str, Pressure]] = field(default_factory=dict)
    hugetlb: dict[str, int] = field(default_factory=dict)

    @property
    def working_set(self) -> int | None:
        """What can't be taken back without swapping: without the page cache that nobody has used of late."""
        inactive = self.memory.get("inactive_file")
        return None if self.memory_current is None or inactive is None else max(0, self.memory_current - inactive)


def read_cgroup(path: str, *, rare: bool = False) -> Reading | None:
    """None where there is no such cgroup (any more). rare: also what only metrics have."""
    try:
        fd = os.open(path, _DIRECTORY)
    except OSError:
        return None
    try:
        return _read_all(fd, rare)
    finally:
        os.close(fd)


def _read_all(fd: int, rare: bool) -> Reading | None:
    made = Reading(cpu=parse_keys(_read(fd, "cpu.stat")))
    if not made.cpu:
        return None  # every cgroup has some of it: this one was removed meanwhile
    made.pressure = {name: found for name in _WEIGHED if (found := parse_pressure(_read(fd, f"{name}.pressure")))}
    text = _read(fd, "memory.current")
    if text:
        made.memory_current = parse_number(text)
        made.memory = parse_keys(_read(fd, "memory.stat"))
        made.memory_max = parse_number(_read(fd, "memory.max"))
        made.swap_current = parse_number(_read(fd, "memory.swap.current"))
        made.swap_max = parse_number(_read(fd, "memory.swap.max"))
    made.threads = parse_number(_read(fd, "pids.current"))
    if rare:
        made.memory_events = parse_keys(_read(fd, "memory.events"))
        made.memory_peak = parse_number(_read(fd, "memory.peak"))
        made.threads_max = parse_number(_read(fd, "pids.max"))
        made.devices = parse_devices(_read(fd, "io.stat"))
        for name in os.listdir(fd):
            if name.startswith("hugetlb.") and name.endswith(".current") and ".rsvd." not in name:
                value = parse_number(_read(fd, name))
                if value is not None:
                    made.hugetlb[name[len("hugetlb.") : -len(".current")]] = value
    return made


def _read(fd: int, name: str) -> str:
    """A file's text; "" where there is none, or it can't be read."""
    try:
        file = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=fd)
    except OSError:
        return ""
    try:
        data = os.read(file, FILE_BYTES)
        while len(data) < FILE_BYTES and (part := os.read(file, FILE_BYTES)):
            data += part
    except OSError:
        return ""
    finally:
        os.close(file)
    return data.decode("ascii", "replace")


# --- the formats, pure ------------------------------------------------------------------------------------------------


def parse_keys(text: str) -> dict[str, int]:
    """A flat keyed file. A line that is not understood is left out."""
    rows = (line.split(" ") for line in text.splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdecimal()}


def parse_number(text: str) -> int | None:
    """None for "max", and where there is no file."""
    text = text.strip()
    return int(text) if text.isdecimal() else None


def parse_pressure(text: str) -> dict[str, Pressure]:
    found = {}
    for line in text.splitlines():
        name, *items = line.split()
        values = dict(item.split("=", 1) for item in items if "=" in item)
        try:
            averages = (float(values["avg10"]), float(values["avg60"]), float(values["avg300"]))
            found[name] = Pressure(int(values["total"]), *averages)
        except (KeyError, ValueError):
            continue
    return found


def parse_devices(text: str) -> dict[str, dict[str, int]]:
    found = {}
    for line in text.splitlines():
        device, *items = line.split()
        pairs = (item.partition("=") for item in items)
        values = {key: int(value) for key, _, value in pairs if value.isdecimal()}
        if ":" in device and values:
            found[device] = values
    return found


# --- processes --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Processes:
    """Of a cgroup and those below it. files, sockets: what they have open, None where they are too many to count.
    soft_limit: of open files, of the first one; None: it has none, or there is no process."""

    count: int
    threads: int
    files: int | None
    sockets: int | None
    soft_limit: int | None


def count_open_files(path: str) -> Processes:
    """Of the processes of a cgroup. One that ends meanwhile counts for nothing."""
    pids: list[int] = []
    threads = 0
    for directory in _with_children(path):
        pids += _numbers(f"{directory}/cgroup.procs")
        threads += len(_numbers(f"{directory}/cgroup.threads"))
    files: int | None = 0
    sockets = 0
    for pid in pids:
        found = _open_files(pid)
        if len(pids) > PROCESSES or files is None or files + found[0] > OPEN_FILES:
            files = None
            break
        files, sockets = files + found[0], sockets + found[1]
    limit = _soft_limit(pids[0]) if pids else None
    return Processes(len(pids), threads, files, None if files is None else sockets, limit)


def _with_children(path: str) -> list[str]:
    """A cgroup, and those of its execs below it; what a container has made below its own is one level deeper still."""
    found = [path]
    for directory in found:
        if len(found) > PROCESSES:
            break
        try:
            with os.scandir(directory) as entries:
                found += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            continue
    return found


def _numbers(path: str) -> list[int]:
    try:
        with open(path, "rb", buffering=0) as file:
            data = file.readall() or b""
    except OSError:
        return []
    return [int(word) for word in data.split() if word.isdigit() and word != b"0"]


def _open_files(pid: int) -> tuple[int, int]:
    try:
        fd = os.open(f"/proc/{pid}/fd", _DIRECTORY)
    except OSError:
        return 0, 0
    sockets = 0
    try:
        names = os.listdir(fd)
        if len(names) > OPEN_FILES:
            return len(names), 0
        for name in names:
            try:
                sockets += os.readlink(name, dir_fd=fd).startswith("socket:")
            except OSError:
                continue
    except OSError:
        return 0, 0
    finally:
        os.close(fd)
    return len(names), sockets


def _soft_limit(pid: int) -> int | None:
    """proc_pid_limits(5)."""
    try:
        with open(f"/proc/{pid}/limits", encoding="ascii", errors="replace") as file:
            lines = file.read(1 << 14).splitlines()
    except OSError:
        return None
    words = next((line.split() for line in lines if line.startswith("Max open files")), [])
    return int(words[3]) if len(words) > 3 and words[3].isdecimal() else None
