"""The processes of a container: those of its cgroup and of all cgroups below it."""

from __future__ import annotations

import posix

from ..errors import PyrunError
from ..facts import read_text
from .live_cgroup import live_cgroup
from .store import Container, Store


def pids_of(store: Store, container: str) -> list[int]:
    """The pids as we see them, in ascending order; none when it has stopped. Without a cgroup: the init alone."""
    c = store.open(container)
    cgroup = live_cgroup(c)
    if not cgroup or not _is_there(cgroup):
        return _init_only(c)
    pids: set[int] = set()
    _collect(cgroup, pids)
    return sorted(pids)


def _init_only(c: Container) -> list[int]:
    pid = c.pid()
    if pid and c.record.text("cgroup") and posix.geteuid() == 0:
        hint = "something removed it or moved the container"
        raise PyrunError(f"its cgroup {c.record.text('cgroup')} does not exist", hint=hint)
    return [pid] if pid else []


def _is_there(path: str) -> bool:
    try:
        posix.stat(path + "/cgroup.procs")
    except OSError:
        return False
    return True


def _collect(cgroup: str, pids: set[int]) -> None:
    # A threaded cgroup can't be read (EOPNOTSUPP): the processes of its threads stand in the domain above it. 0 is
    # a process of another PID namespace, which has no number here.
    pids.update(int(word) for word in read_text(cgroup + "/cgroup.procs", 64 << 20).split() if word != "0")
    try:
        with posix.scandir(cgroup) as entries:
            below = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:  # removed meanwhile
        return
    for path in below:
        _collect(path, pids)
