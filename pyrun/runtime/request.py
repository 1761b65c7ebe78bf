"""The request of a container that is there, from its record: what its later plans are made of."""

from __future__ import annotations

import posix

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


def callers_environment() -> tuple[str, ...]:
    """Ours, which hooks get that have none of their own."""
    pairs = posix.environ.items()
    return tuple([f"{k.decode('utf-8', 'surrogateescape')}={v.decode('utf-8', 'surrogateescape')}" for k, v in pairs])
