"""Starts pyrun-dns and makes its sockets. It gets a listening control socket, a user and nothing else of ours."""

from __future__ import annotations

import contextlib
import os
import pwd
import select
import signal
import socket
from pathlib import Path

import pyrun

from ..errors import PyrunError, reason

PROGRAM = Path(pyrun.__file__).parent / "bin" / "pyrun-dns"
USER, NOBODYS = "pyrun-dns", 65053  # where there is no such user: a number that Debian's policy reserves
RECEIVE_BYTES = 4 << 20
TCP_BACKLOG = 256
END_S = 10.0


def user_of() -> tuple[int, int]:
    """uid and gid that the program runs as."""
    try:
        found = pwd.getpwnam(USER)
        return found.pw_uid, found.pw_gid
    except KeyError:
        return NOBODYS, NOBODYS


def start(control: str, program: Path = PROGRAM) -> int:
    """The pid of a new program that listens at this path for who controls it. It lives on when we end. PyrunError."""
    if not os.access(program, os.X_OK):
        raise PyrunError(f"{program} is missing", hint="build it: ./bootstrap build")
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(control)
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    except OSError as error:
        raise PyrunError(f"listen at {control}: {reason(error)}")
    with made as listener:
        try:
            listener.bind(control)
            os.chmod(control, 0o600)
            listener.listen(8)
        except OSError as error:
            raise PyrunError(f"listen at {control}: {reason(error)}")
        uid, gid = user_of()
        # Higher ones are closed by the program before it does anything else.
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, 2, 1),
            (os.POSIX_SPAWN_DUP2, listener.fileno(), 3),
        ]
        try:
            return os.posix_spawn(
                program,
                [str(program), str(uid), str(gid)],
                {},
                file_actions=actions,
                setsid=True,
                setsigmask=(),
                setsigdef=(signal.SIGPIPE, signal.SIGTERM),
            )
        except OSError as error:
            raise PyrunError(f"start {program}: {reason(error)}")


def end_program(pid: int) -> None:
    """Sees to it that this one is gone, and leaves no zombie. One that is no child of ours has to be called so: its pid
    may be another's by now."""
    with contextlib.suppress(ProcessLookupError):
        try:
            if os.waitpid(pid, os.WNOHANG)[0] == 0:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        except ChildProcessError:
            _end_stranger(pid)


def _end_stranger(pid: int) -> None:
    fd = os.pidfd_open(pid)
    try:
        if os.path.basename(os.readlink(f"/proc/{pid}/exe")).split()[0] == PROGRAM.name:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            select.select([fd], [], [], END_S)
    except OSError:  # it has gone meanwhile
        pass
    finally:
        os.close(fd)


def listening_at(control: str) -> list[int]:
    """The pids of programs that listen at this path, whether they say so or not."""
    sockets, found = set(), []
    for line in Path("/proc/self/net/unix").read_text(errors="replace").splitlines():
        inode, path = line.split(maxsplit=7)[-2:]
        if path == control:
            sockets.add(f"socket:[{inode}]")
    for at in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            is_one = os.path.basename(os.readlink(at / "exe")).split()[0] == PROGRAM.name
            if is_one and os.readlink(at / "fd" / "3") in sockets:
                found.append(int(at.name))
    return found


def sockets_at(address: str, port: int) -> list[socket.socket]:
    """A UDP and a TCP socket bound to this address, which need not be one of the host's yet. PyrunError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made: list[socket.socket] = []
    try:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            one = socket.socket(family, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            made.append(one)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                one.setsockopt(socket.IPPROTO_IPV6, 78, 1)  # IPV6_FREEBIND
            else:
                one.setsockopt(socket.IPPROTO_IP, 15, 1)  # IP_FREEBIND
            if kind == socket.SOCK_STREAM:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                one.bind((address, port))
                one.listen(TCP_BACKLOG)
            else:
                force = 33  # SO_RCVBUFFORCE: a burst waits and is not lost
                with contextlib.suppress(OSError):
                    one.setsockopt(socket.SOL_SOCKET, force, RECEIVE_BYTES)
                one.bind((address, port))
                port = one.getsockname()[1]  # of 0, TCP gets the same one
    except OSError as error:
        for one in made:
            one.close()
        raise PyrunError(f"listen at {address} port {port}: {reason(error)}")
    return made
