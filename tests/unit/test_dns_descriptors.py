"""A machine without descriptors: the DNS daemon goes on, and tells what it could not have."""

from __future__ import annotations

import errno
import socket

import pytest

from pyrun.dns import upstream, wire
from pyrun.dns.loop import Loop
from pyrun.dns.program import start
from pyrun.dns.responder import Responder
from pyrun.errors import PyrunError


class Waiting:
    """Who wants to know."""

    name, kind, failures = wire.name_of("a.test"), wire.A, 0

    def took(self, server: upstream.Upstream, data: bytes) -> None:
        raise AssertionError(data)

    def failed(self, server: upstream.Upstream) -> None:
        self.failures += 1


@pytest.fixture
def nothing_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(socket, "socket", none)


def test_a_question_over_tcp_has_failed(nothing_left: None) -> None:
    loop, waiting = Loop(), Waiting()
    server = upstream.Upstream(loop, ("127.0.0.1", 9))
    server.ask_tcp(waiting)
    server.close()
    loop.close()
    assert waiting.failures == server.failed == 1


def test_a_program_that_can_not_be_started_or_spoken_with_is_told(nothing_left: None) -> None:
    for call in (start, Responder.connect):
        with pytest.raises(PyrunError, match="too many open files"):
            call("/nonexistent/control.sock")
