"""Descriptors that come over a socket are nobody's but ours."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

from pyrun.rights import receive_message, send_message


def ends_of(pipe: int) -> set[int]:
    """Which of our descriptors are of this pipe; others come and go as threads and collectors of garbage like."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if os.path.samestat(os.fstat(int(name)), os.fstat(pipe)):
                found.add(int(name))
    return found


def test_what_is_taken_is_not_inherited_and_no_more_than_was_asked_for() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reader, writer = os.pipe()
    with ours, theirs:
        for wanted in (1, 2, 3):
            send_message(theirs, b"message", (reader, writer, reader))
            message, fds = receive_message(ours, 64, wanted)
            assert (message, len(fds)) == (b"message", wanted)
            assert not any(os.get_inheritable(fd) for fd in fds)
            assert os.path.samestat(os.fstat(fds[0]), os.fstat(reader))
            for fd in fds:
                os.close(fd)
            assert ends_of(reader) == {reader, writer}, "the kernel has closed the others"
        theirs.close()
        assert receive_message(ours, 64) == (b"", [])
    os.close(reader)
    os.close(writer)
