"""The request of a container that is there, from its record: what its later plans are made of."""

from __future__ import annotations

import posix

from ..facts import read_text
from ..plan.model.request import Request
from .record import NOTIFY, SYSTEMD
from .store import Container


def request_of(container: Container) -> Request:
    """The request that a container's later plans need."""
    r = container.record
    return Request(
        id=container.id,
        bundle=r.text("bundle"),
        rootfs=r.text("rootfs"),
        state_dir=container.directory,
        cgroup=r.text("cgroup") or None,
        notify=bool(r.flags & NOTIFY),
        systemd=bool(r.flags & SYSTEMD),
        environ=callers_environment(),
    )


def callers_environment(pid: int = 0) -> tuple[str, ...]:
    """Ours, or that with which another process began, in our place. Hooks get it that have none of their own."""
    if pid not in (0, posix.getpid()):
        words = [word.partition("=") for word in read_text(f"/proc/{pid}/environ").split("\0")]
        began = {name: value for name, equals, value in reversed(words) if equals and name != "PYRUN_FAILED"}
        return tuple([f"{name}={value}" for name, value in reversed(began.items())])
    pairs = posix.environ.items()
    return tuple([f"{k.decode('utf-8', 'surrogateescape')}={v.decode('utf-8', 'surrogateescape')}" for k, v in pairs])
