"""pause and resume: the freezer of the container's cgroup.

The kernel freezes in its own time: cgroup.freeze only asks, and cgroup.events says `frozen 1` once every task has
stopped. A pause that does not come to that is taken back, so that a container is never left half frozen (runc does
the same).
"""

from __future__ import annotations

import posix

from ..errors import PyrunError
from .cgroup import wait_for_event
from .live_cgroup import open_cgroup
from .store import CREATED, PAUSED, RUNNING, Container, Store

TIMEOUT_S = 10.0


def pause(store: Store, container: str) -> None:
    """Freezes all processes. PyrunError when it is not running, or has no cgroup of its own."""
    c = store.open(container)
    status = c.status()
    if status not in (RUNNING, CREATED):
        hint = "only a created or running container can be paused"
        raise PyrunError(f"container not running: it is {status}", hint=hint)
    cgroup = _cgroup(c, "pause")
    try:
        _freeze(cgroup, "1")
        if not wait_for_event(cgroup, "frozen 1", TIMEOUT_S):
            _freeze(cgroup, "0")
            hint = "a task in an uninterruptible sleep can't be stopped; the container runs on"
            raise PyrunError(f"its processes did not freeze in {TIMEOUT_S:.0f} s", hint=hint)
    finally:
        posix.close(cgroup)


def resume(store: Store, container: str) -> None:
    """Thaws all processes. PyrunError when it is not paused."""
    c = store.open(container)
    status = c.status()
    if status != PAUSED:
        raise PyrunError(f"container not paused: it is {status}")
    cgroup = _cgroup(c, "resume")
    try:
        _freeze(cgroup, "0")
        if not wait_for_event(cgroup, "frozen 0", TIMEOUT_S):
            raise PyrunError(f"its processes did not thaw in {TIMEOUT_S:.0f} s", hint="a cgroup above it may be frozen")
    finally:
        posix.close(cgroup)


def _cgroup(c: Container, verb: str) -> int:
    """A descriptor of its directory."""
    cgroup = open_cgroup(c)
    if cgroup < 0:
        hint = "without root a container gets one only where a cgroup has been delegated to the user"
        raise PyrunError(f"cannot {verb} a container that has no cgroup of its own", hint=hint)
    return cgroup


def _freeze(cgroup: int, value: str) -> None:
    try:
        fd = posix.open("cgroup.freeze", posix.O_WRONLY | posix.O_CLOEXEC, dir_fd=cgroup)
        try:
            posix.write(fd, value.encode())
        finally:
            posix.close(fd)
    except OSError as e:
        reason = (e.strerror or str(e)).lower()
        raise PyrunError(f"write {value} to cgroup.freeze: {reason}", hint="the freezer needs a writable cgroup v2")
