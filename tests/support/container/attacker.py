"""A process of the container that tries to get at another one: `attacker.py HOST_PID PID`; prints what worked.

The test starts it in the container's PID namespace with the container's capabilities, but with the host's files, for
there is no tool in a busybox image that traces. HOST_PID is the victim's pid in our /proc, PID that in the namespace.
"""

from __future__ import annotations

import ctypes
import os
import sys

PTRACE_ATTACH, PTRACE_DETACH = 16, 17
SYS_PIDFD_GETFD = 438


def tries(host: int, pid: int) -> list[str]:
    libc = ctypes.CDLL(None, use_errno=True)
    worked = []
    for fd in range(16):
        try:
            os.close(os.open(f"/proc/{host}/fd/{fd}", os.O_PATH))
            worked.append("open fd")
        except OSError:
            pass
    for name in ("exe", "cwd", "root"):
        try:
            os.close(os.open(f"/proc/{host}/{name}", os.O_PATH))
            worked.append(f"open {name}")
        except OSError:
            pass
    for name in ("mem", "environ"):
        try:
            with open(f"/proc/{host}/{name}", "rb", buffering=0):
                worked.append(f"open {name}")
        except OSError:
            pass
    pidfd = os.pidfd_open(pid)
    for fd in range(16):
        if libc.syscall(SYS_PIDFD_GETFD, pidfd, fd, 0) >= 0:
            worked.append(f"pidfd_getfd {fd}")
    if libc.ptrace(PTRACE_ATTACH, pid, 0, 0) == 0:
        worked.append("ptrace")
        os.waitpid(pid, 0x40000000)
        libc.ptrace(PTRACE_DETACH, pid, 0, 0)
    return worked


if __name__ == "__main__":
    for line in tries(int(sys.argv[1]), int(sys.argv[2])):
        print(line)
