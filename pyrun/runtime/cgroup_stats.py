"""A container's statistics from the files of its cgroup, in the types that `runc events` prints.

Those are of cgroup v1, and engines read them: microseconds become nanoseconds, swap is memory and swap together,
"max" is 2^64-1, and io.stat is split by what it counts. What a missing controller can't tell is left out, as Go
leaves out zero values. A line or file that is not understood is skipped: statistics never fail because a newer
kernel says more.
"""

from __future__ import annotations

from ..facts import read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

UNLIMITED = (1 << 64) - 1
_CPUSET = (
    "cpu_exclusive", "mem_hardwall", "mem_exclusive", "memory_migrate", "memory_spread_page", "memory_spread_slab",
    "memory_pressure", "sched_load_balance", "sched_relax_domain_level",
)  # fmt: skip
# Key of io.stat -> (table of runc's Blkio, operation).
_IO = {
    "rbytes": ("ioServiceBytesRecursive", "Read"),
    "wbytes": ("ioServiceBytesRecursive", "Write"),
    "rios": ("ioServicedRecursive", "Read"),
    "wios": ("ioServicedRecursive", "Write"),
}


def collect_stats(cgroup: str) -> dict[str, Any]:
    """The `data` of a stats event, for the cgroup at this absolute path."""
    return {
        "cpu": _cpu(cgroup),
        "cpuset": dict.fromkeys(_CPUSET, 0),
        "memory": _memory(cgroup),
        "pids": _pids(cgroup),
        "blkio": _blkio(cgroup),
        "hugetlb": _hugetlb(cgroup),
        "intel_rdt": {},
        "network_interfaces": None,
    }


def counters(path: str) -> dict[str, int]:
    """A flat keyed file: cpu.stat, memory.stat, memory.events, cgroup.events."""
    rows = (line.split(" ") for line in read_text(path).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}


def _number(path: str) -> int | None:
    """A file of one value; None where there is no such file."""
    text = read_text(path).strip()
    return UNLIMITED if text == "max" else int(text) if text.isdigit() else None


def _set(values: dict[str, Any]) -> dict[str, Any]:
    """Those that are not zero, empty or absent, as Go's omitempty has it."""
    return {name: value for name, value in values.items() if value}


def _cpu(cgroup: str) -> dict[str, Any]:
    stat = counters(cgroup + "/cpu.stat")
    usage = {
        "kernel": stat.get("system_usec", 0) * 1000,
        "user": stat.get("user_usec", 0) * 1000,
    }
    throttling = {
        "periods": stat.get("nr_periods"),
        "throttledPeriods": stat.get("nr_throttled"),
        "throttledTime": stat.get("throttled_usec", 0) * 1000,
    }
    total = _set({"total": stat.get("usage_usec", 0) * 1000})
    return _set({"usage": total | usage, "throttling": _set(throttling), "psi": _pressure(cgroup + "/cpu.pressure")})


def _memory(cgroup: str) -> dict[str, Any]:
    raw = counters(cgroup + "/memory.stat")
    usage = _memory_entry(cgroup + "/memory")
    swap = _memory_entry(cgroup + "/memory.swap")
    if usage and swap:
        limited = swap["limit"] != UNLIMITED and usage["limit"] != UNLIMITED
        both = swap.get("usage", 0) + usage.get("usage", 0)
        limit = swap["limit"] + usage["limit"] if limited else UNLIMITED
        swap = {"limit": limit, **_set({"usage": both}), "failcnt": 0}
    made = {"cache": raw.get("file"), "usage": usage, "swap": swap, "raw": raw}
    return _set({**made, "psi": _pressure(cgroup + "/memory.pressure")})


def _memory_entry(prefix: str) -> dict[str, int]:
    usage = _number(prefix + ".current")
    if usage is None:
        return {}
    peak = _number(prefix + ".peak")
    return {"limit": _number(prefix + ".max") or 0, **_set({"usage": usage, "max": peak}), "failcnt": 0}


def _pids(cgroup: str) -> dict[str, Any]:
    current, limit = _number(cgroup + "/pids.current"), _number(cgroup + "/pids.max")
    if current is None:
        current = len(read_text(cgroup + "/cgroup.procs").split())
    return _set({"current": current, "limit": 0 if limit == UNLIMITED else limit})


def _blkio(cgroup: str) -> dict[str, Any]:
    tables: dict[str, Any] = {}
    for line in read_text(cgroup + "/io.stat").splitlines():
        device, *items = line.split()
        major, colon, minor = device.partition(":")
        if not (colon and major.isdigit() and minor.isdigit()):
            continue
        for item in items:
            key, _, value = item.partition("=")
            if key in _IO and value.isdigit():
                table, operation = _IO[key]
                entry = {"major": int(major), "minor": int(minor), "op": operation, "value": int(value)}
                tables.setdefault(table, []).append(_set(entry))
    return _set({**tables, "psi": _pressure(cgroup + "/io.pressure")})


def _hugetlb(cgroup: str) -> dict[str, Any]:
    made = {}
    for size in _page_sizes():
        prefix = f"{cgroup}/hugetlb.{size}"
        usage = _number(prefix + ".rsvd.current")
        usage = _number(prefix + ".current") if usage is None else usage
        if usage is not None:
            made[size] = {**_set({"usage": usage}), "failcnt": counters(prefix + ".events").get("max", 0)}
    return made


def _page_sizes() -> list[str]:
    """As the names of cgroup files have them: 64KB, 2MB, 1GB (hugetlb_cgroup.c, mem_fmt)."""
    import posix

    try:
        names = posix.listdir("/sys/kernel/mm/hugepages")
    except OSError:
        return []
    sizes = sorted(int(name[10:-2]) for name in names if name.startswith("hugepages-") and name[10:-2].isdigit())
    return [f"{kb >> 20}GB" if kb >= 1 << 20 else f"{kb >> 10}MB" if kb >= 1 << 10 else f"{kb}KB" for kb in sizes]


def _pressure(path: str) -> dict[str, Any]:
    """PSI: {"some": {avg10, avg60, avg300, total}, "full": …}; empty where the kernel keeps none."""
    made: dict[str, Any] = {}
    for line in read_text(path).splitlines():
        name, *items = line.split()
        pairs = [item.partition("=") for item in items]
        made[name] = {key: int(text) if key == "total" else float(text) for key, _, text in pairs}
    return made
