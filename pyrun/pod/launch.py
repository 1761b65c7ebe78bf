"""Starts pyrun-pod, which forks and ends when it listens: so it is nobody's child but the node's."""

from __future__ import annotations

import fcntl
import os
from typing import Any

from ..errors import PyrunError, reason

BINARY = f"{__file__.rpartition('/pod/')[0]}/bin/pyrun-pod"


def spawn(directory: str, pod_id: str, cgroup: int | None) -> int:
    """pyrun-pod, which forks and ends when it listens: its exit status, an errno."""
    held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    moved: list[int] = []
    try:
        # Above what they become: else one would be overwritten before it is moved. And dup2 onto itself keeps CLOEXEC.
        moved += [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 16) for fd in (null, held)]
        actions: list[Any] = [(os.POSIX_SPAWN_DUP2, moved[0], n) for n in (0, 1, 2)]
        actions.append((os.POSIX_SPAWN_DUP2, moved[1], 3))
        if cgroup is not None:
            moved.append(fcntl.fcntl(cgroup, fcntl.F_DUPFD_CLOEXEC, 16))
            actions.append((os.POSIX_SPAWN_DUP2, moved[2], 4))
        else:
            actions.append((os.POSIX_SPAWN_CLOSE, 4))
        try:
            pid = os.posix_spawn(BINARY, ["pyrun-pod", pod_id], {}, file_actions=actions)
        except OSError as e:
            hint = "is the package whole, and may programs run from where it lies (no noexec)?"
            raise PyrunError(f"{BINARY}: {reason(e)}", hint=hint) from None
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        for fd in (held, null, *moved):
            os.close(fd)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
