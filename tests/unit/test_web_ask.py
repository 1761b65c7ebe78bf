"""Questions between a web process and the one with the privileges."""

from __future__ import annotations

import os
import socket

import pytest

from pyrun.web.ask import Questions, take_question


def test_no_child_inherits_the_socket_of_an_answer() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        with Questions(ours).send("healthy", of=["a"]) as answer:
            message, [stream] = take_question(theirs)
            with stream:
                assert message == b'{"ask": "healthy", "of": ["a"]}' and not os.get_inheritable(stream.fileno())
                stream.sendall(b"x")
            assert answer.recv(10) == b"x"
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            take_question(theirs)
        ours.close()
        assert take_question(theirs) == (b"", [])
