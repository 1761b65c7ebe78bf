"""events: a container's statistics, and its out-of-memory kills, as they come.

cgroup files say that they changed by POLLPRI, so nothing here runs between two statistics but when the kernel killed in
the container or its last process ended.
"""

from __future__ import annotations

import posix
import select
import time

from ..errors import PyrunError
from .cgroup_stats import collect_stats, counters
from .live_cgroup import open_cgroup
from .store import STOPPED, Container, Store

LONGEST_S = 86_400.0  # poll(2) takes no more than 24 days

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


def events(store: Store, container: str, *, stats: bool = False, interval: float = 5.0) -> Iterator[dict[str, Any]]:
    """{type: "stats" or "oom", id, data}; with `stats` one, else one each `interval` seconds until the container stops.

    PyrunError, at the first, when it does not run or has no cgroup."""
    if interval <= 0:
        raise PyrunError("--interval must be greater than 0")
    c = store.open(container)
    if c.status() == STOPPED:
        raise PyrunError("container not running", hint="there are statistics only while it runs")
    fd = open_cgroup(c)
    if fd < 0:
        raise PyrunError("the container has no cgroup of its own, so there is nothing to count")
    cgroup = f"/proc/self/fd/{fd}"
    try:
        if stats:
            yield _stats(c.id, cgroup)
        else:
            yield from _stream(c, cgroup, interval)
    finally:
        posix.close(fd)


def _stats(container: str, cgroup: str) -> dict[str, Any]:
    return {"type": "stats", "id": container, "data": collect_stats(cgroup)}


def _stream(c: Container, cgroup: str, interval: float) -> Iterator[dict[str, Any]]:
    poll, fds = select.poll(), []
    try:
        for name in ("cgroup.events", "memory.events"):
            try:
                fds.append(posix.open(f"{cgroup}/{name}", posix.O_RDONLY | posix.O_CLOEXEC))
            except OSError:  # no memory controller: no kills to tell of
                continue
            poll.register(fds[-1], select.POLLPRI)
            posix.pread(fds[-1], 1, 0)  # only what changes after a read is told
        yield from _watch(c, cgroup, interval, poll, fds)
    finally:
        for fd in fds:
            posix.close(fd)


def _watch(c: Container, cgroup: str, interval: float, poll: Any, fds: list[int]) -> Iterator[dict[str, Any]]:
    killed = counters(cgroup + "/memory.events").get("oom_kill", 0)
    due = time.monotonic() + interval
    while counters(cgroup + "/cgroup.events").get("populated"):
        poll.poll(min(max(0.0, due - time.monotonic()), LONGEST_S) * 1000)
        _rearm(fds)
        now = counters(cgroup + "/memory.events").get("oom_kill", killed)
        for _ in range(now - killed):
            yield {"type": "oom", "id": c.id}
        killed = max(killed, now)
        if time.monotonic() >= due and counters(cgroup + "/cgroup.events").get("populated"):
            yield _stats(c.id, cgroup)
            due += interval


def _rearm(fds: list[int]) -> None:
    for fd in fds:
        try:
            posix.pread(fd, 4096, 0)
        except OSError:  # the cgroup is gone
            continue
