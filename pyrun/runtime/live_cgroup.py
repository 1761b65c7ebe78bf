"""Where a container's processes are now: the cgroup that create made, or that to which the init has moved.

A program with rights to the cgroup tree, such as a systemd in a container, may move itself and remove what it left.
Then the live process is believed and not the record. What is done to a cgroup is done through a descriptor, for its
name may be another's a moment later.
"""

from __future__ import annotations

import posix

from ..facts import cgroup2_mount, is_there, read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from .record import Record

    class Container(Protocol):
        """As store.py has it."""

        record: Record

        def alive(self) -> bool: ...


def live_cgroup(c: Container) -> str:
    """Its path; "" where it has none, or none that we may do to as if it were its own."""
    own = c.record.text("cgroup")
    return own if not own or is_there(own) else _moved(c)


def open_cgroup(c: Container) -> int:
    """A descriptor of it, whose files are those below /proc/self/fd/N; -1 where it has none. What has its name now may
    be another's."""
    own = c.record.text("cgroup")
    fd = _open(own)
    if fd >= 0 and c.record.has_cgroup(posix.fstat(fd).st_ino):
        return fd
    if fd >= 0:
        posix.close(fd)
    return _open(_moved(c)) if own else -1


def _open(path: str) -> int:
    try:
        return posix.open(path, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC) if path else -1
    except OSError:
        return -1


def _moved(c: Container) -> str:
    """Not the root or one above our own, which we would freeze with it, nor one outside of our cgroup namespace."""
    mount = cgroup2_mount(read_text("/proc/self/mountinfo", 8 << 20))
    now, ours = _path_of(str(c.record.pid)), _path_of("self")
    if mount is None or not c.alive():  # asked after the path, so that this was not the path of another by its number
        return ""
    if now in ("", "/") or ".." in now.split("/") or f"{ours}/".startswith(now + "/"):
        return ""
    return mount.rstrip("/") + now


def _path_of(pid: str) -> str:
    """proc_pid_cgroup(5)."""
    lines = read_text(f"/proc/{pid}/cgroup").splitlines()
    return next((line[3:] for line in lines if line.startswith("0::")), "")
