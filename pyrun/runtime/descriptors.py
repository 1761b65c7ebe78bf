"""The caller's descriptors that a program keeps: those of $LISTEN_FDS (sd_listen_fds(3)), then N of --preserve-fds.

They are counted from 3 on, and looked at before anything is made: one that is missing, or that is ours and not the
caller's, is an error and not a hole.
"""

from __future__ import annotations

import posix

from ..errors import PyrunError, UsageError, reason
from ..oci.model import Process, Spec

MOST = 1021  # cffi_build/executor/interp.c, px_check()


def listen_fds() -> int:
    """How many sockets the service manager handed to us, and not to another whose environment we have."""
    count, pid = posix.environ.get(b"LISTEN_FDS", b""), posix.environ.get(b"LISTEN_PID", b"")
    if not (count.isdigit() and len(count) < 5 and pid.isdigit() and int(pid) == posix.getpid()):
        return 0
    return int(count)


def kept_descriptors(preserve: int, listen: int = 0) -> int:
    """How many descriptors from 3 on the program keeps. PyrunError where one of them is not open."""
    if preserve < 0 or preserve + listen > MOST:
        raise UsageError(f"--preserve-fds {preserve}: must be from 0 to {MOST - listen}")
    for fd in range(3, 3 + listen + preserve):
        try:
            handed = posix.get_inheritable(fd)
        except OSError:
            handed = False
        if not handed:
            name = f"--preserve-fds {preserve}" if fd >= 3 + listen else f"LISTEN_FDS={listen}"
            raise PyrunError(
                f"{name}: descriptor {fd} is not open",
                hint=f"the caller must hand on descriptors 3 to {2 + listen + preserve}",
            )
    return listen + preserve


def check_stdio(stdio: tuple[int, int, int] | None, process: Process | None) -> None:
    """PyrunError where the program's standard streams can't be these descriptors."""
    for name, fd in zip(("stdin", "stdout", "stderr"), stdio or (), strict=False):
        try:
            posix.fstat(fd)
        except OSError as e:
            raise PyrunError(f"{name}: descriptor {fd}: {reason(e)}", hint="it must stay open till this call returns")
    if stdio is not None and process is not None and process.terminal:
        raise PyrunError("a program with a terminal has that for its standard streams", pointer="/process/terminal")


def with_listen_fds(spec: Spec, count: int) -> Spec:
    """The spec whose program is told of its sockets. Its pid in the container is 1."""
    if not count or spec.process is None:
        return spec
    return spec.replace(process=spec.process.replace(env=(*spec.process.env, f"LISTEN_FDS={count}", "LISTEN_PID=1")))
