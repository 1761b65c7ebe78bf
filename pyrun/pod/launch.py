"""Starts pyrun-pod, which forks and ends when it listens: so it is nobody's child but the node's."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable
from typing import Any

from ..errors import PyrunError, reason

BINARY = f"{__file__.rpartition('/pod/')[0]}/bin/pyrun-pod"


def spawn(directory: str, pod_id: str, cgroup: int | None, around: Callable[[int], None] | None = None) -> int:
    """pyrun-pod, which forks and ends when it listens: its exit status, an errno.

    cgroup: a descriptor of the one that it is to be in. around: called with its pid before it does anything, to make
    its cgroup around it; where that raises, or we are killed, it ends.
    PyrunError where it can't be run, or is killed."""
    held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    moved: list[int] = []
    go = -1
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
        if around is not None:
            waits, go = os.pipe2(os.O_CLOEXEC)
            moved.append(waits)
            moved.append(fcntl.fcntl(waits, fcntl.F_DUPFD_CLOEXEC, 16))
            actions.append((os.POSIX_SPAWN_DUP2, moved[-1], 5))
        else:
            actions.append((os.POSIX_SPAWN_CLOSE, 5))
        try:
            pid = os.posix_spawn(BINARY, ["pyrun-pod", pod_id], {}, file_actions=actions)
        except OSError as e:
            hint = "is the package whole, and may programs run from where it lies (no noexec)?"
            raise PyrunError(f"{BINARY}: {reason(e)}", hint=hint) from None
        try:
            if around is not None:
                around(pid)
                with contextlib.suppress(BrokenPipeError):  # it was killed, as its status says
                    os.write(go, b"\n")
        finally:
            if go >= 0:
                os.close(go)
                go = -1
            status = os.waitpid(pid, 0)[1]
        if os.WIFSIGNALED(status):
            raise PyrunError(
                f"pyrun-pod was ended by signal {os.WTERMSIG(status)} before it began",
                hint="is the machine being shut down, or memory short?",
            )
        return os.waitstatus_to_exitcode(status)
    finally:
        for fd in (held, null, *moved, *([go] if go >= 0 else [])):
            os.close(fd)
