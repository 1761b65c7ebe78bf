"""Descriptors that come over a socket are nobody's but ours."""

from __future__ import annotations

import os
import socket

from pyrun.rights import receive_message, send_message


def test_what_is_taken_is_not_inherited_and_no_more_than_was_asked_for() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reader, writer = os.pipe()
    with ours, theirs:
        before = set(os.listdir("/proc/self/fd"))
        for wanted in (1, 2, 3):
            send_message(theirs, b"message", (reader, writer, reader))
            message, fds = receive_message(ours, 64, wanted)
            assert (message, len(fds)) == (b"message", wanted)
            assert not any(os.get_inheritable(fd) for fd in fds)
            assert os.path.samestat(os.fstat(fds[0]), os.fstat(reader))
            for fd in fds:
                os.close(fd)
            assert set(os.listdir("/proc/self/fd")) == before, "the kernel has closed the others"
        theirs.close()
        assert receive_message(ours, 64) == (b"", [])
    os.close(reader)
    os.close(writer)
