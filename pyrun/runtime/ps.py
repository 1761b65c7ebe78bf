"""The processes of a container: those of its cgroup and of all cgroups below it."""

from __future__ import annotations

import posix

from ..errors import PyrunError
from .cgroup import pids_below
from .live_cgroup import open_cgroup
from .store import Container, Held, Store


def pids_of(store: Store, container: str) -> list[int]:
    """The pids as we see them, in ascending order; none when it has stopped. Without a cgroup: the init alone."""
    c = store.open(container)
    c.alive()  # or pids have no meaning here
    with Held(open_cgroup(c)) as cgroup:
        return pids_below(cgroup) if cgroup >= 0 else _init_only(c)


def _init_only(c: Container) -> list[int]:
    pid = c.pid()
    if pid and c.record.text("cgroup") and posix.geteuid() == 0:
        hint = "something removed it or moved the container"
        raise PyrunError(f"its cgroup {c.record.text('cgroup')} does not exist", hint=hint)
    return [pid] if pid else []
