"""A process without privileges: what takes one is opened first, then all of them are given up for good."""

from __future__ import annotations

import ctypes
import os
import pwd
import resource
import select
import signal
import socket

from ..errors import InvalidArgument, NotFound, PyrunError, reason

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
STOP_S = 5.0
BACKLOG = 128
SEND_BUFFER = 256 * 1024


def find_user(name: str) -> pwd.struct_passwd | None:
    """None where we have no privilege that could be given up."""
    if os.geteuid() != 0:
        return None
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise NotFound(f"--user {name}: there is no such user", hint="useradd --system makes one") from None
    if user.pw_uid == 0:
        raise InvalidArgument(f"--user {name} is root", hint="what talks to browsers must not be")
    return user


def listen_tcp(host: str, port: int, option: str = "--address HOST:PORT") -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit it: who asks for much and reads nothing fills no more of the kernel's memory.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise PyrunError(f"{host}:{port}: {reason(error)}", hint=f"{option} has another") from None
    listener.setblocking(False)
    return listener


def keep_only(*fds: int) -> None:
    """Closes all descriptors but these and the first three."""
    keep = sorted(fds)
    for low, high in zip((2, *keep), (*keep, resource.getrlimit(resource.RLIMIT_NOFILE)[0]), strict=True):
        os.closerange(low + 1, high)


def give_up_privileges(user: pwd.struct_passwd | None) -> None:
    """For good: no capability is left, and no program can bring one back. user: None keeps who we are."""
    libc = ctypes.CDLL(None, use_errno=True)
    if user is not None:
        os.setgroups([])
        os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
        os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    for option, value in ((PR_SET_NO_NEW_PRIVS, 1), (PR_SET_DUMPABLE, 0)):
        if libc.prctl(option, value, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.chdir("/")
    if user is not None and 0 in (*os.getresuid(), *os.getresgid(), *os.getgroups()):
        raise PyrunError("root's privileges are still there")


def end_with(parent: int) -> None:
    """We are told to end when the parent, which forked us, is gone."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def end(pid: int) -> int:
    """Ends the process, a child of ours. Its exit code."""
    pidfd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        if not select.select([pidfd], [], [], STOP_S)[0]:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
