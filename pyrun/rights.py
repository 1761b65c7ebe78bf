"""Descriptors over a unix socket (SCM_RIGHTS, unix(7)). socket.recv_fds() leaves its flags aside, and a child that is
made in the middle would inherit what came."""

from __future__ import annotations

import array
import socket
from collections.abc import Sequence

_SIZE = array.array("i").itemsize


def send_message(s: socket.socket, message: bytes, fds: Sequence[int] = ()) -> None:
    """No SIGPIPE. OSError."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    s.sendmsg([message], rights, socket.MSG_NOSIGNAL)


def receive_message(s: socket.socket, most: int, most_fds: int = 1, flags: int = 0) -> tuple[bytes, list[int]]:
    """What came, b"" at the end, and at most so many descriptors, close-on-exec; the others are closed. OSError."""
    flags |= socket.MSG_CMSG_CLOEXEC
    # CMSG_LEN, as the padding that CMSG_SPACE counts has room for one more.
    message, control, _, _ = s.recvmsg(most, socket.CMSG_LEN(most_fds * _SIZE), flags)
    fds = array.array("i")
    for level, kind, data in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % _SIZE])
    return message, list(fds)
