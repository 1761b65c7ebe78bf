"""Commands, attachments and ports, got from the agent as descriptors: the other side of streams.py.

A command and an attachment are as the streaming code wants them (cri/stream/backend.py)."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from typing import Any

from ...errors import PyrunError, Unavailable, reason
from ...rights import receive_message
from ...web.ask import value_of
from .ask import HINT

PATIENCE_S = 60.0
MOST_FDS = 4
LONGEST = 64 * 1024


def asked(path: str, ask: str, **question: Any) -> socket.socket:
    """Asks at the agent's socket for streams; the answer comes on what is given back. Unavailable."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    made.settimeout(PATIENCE_S)
    try:
        made.connect(path)
        made.sendall(json.dumps({"ask": ask, **question}).encode() + b"\n")
    except OSError as error:
        made.close()
        raise Unavailable(f"{path}: {reason(error)}", hint=HINT) from None
    return made


class Remote:
    """What the agent holds for us: words go over the socket, and its end is the other's. By any thread."""

    def __init__(self, question: socket.socket) -> None:
        """question: a socket on which the answer comes."""
        self._lock = threading.Lock()
        self._rest = b""
        self._socket = question
        self._socket.settimeout(PATIENCE_S)
        self.fds: list[int] = []
        try:
            self.value = value_of(self._line())
        except BaseException:
            self.end()
            raise

    def ask(self, **words: Any) -> Any:
        with self._lock:
            try:
                self._socket.sendall(json.dumps(words).encode() + b"\n")
            except OSError:
                raise Unavailable("the agent is gone") from None
            return value_of(self._line())

    def _line(self) -> bytes:
        while b"\n" not in self._rest:
            try:
                data, fds = receive_message(self._socket, LONGEST, MOST_FDS)
            except OSError:
                raise Unavailable("the agent did not answer") from None
            self.fds += fds
            if not data or len(self._rest) > LONGEST:
                raise Unavailable("the agent did not answer", hint="it may have too many questions")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def take(self) -> int:
        """The next descriptor, the caller's from now on."""
        if not self.fds:
            raise Unavailable("the agent sent no descriptor")
        return self.fds.pop(0)

    def end(self) -> None:
        self._socket.close()
        for fd in self.fds:
            os.close(fd)
        self.fds = []


class RemoteCommand:
    """A Command."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self.done = remote.take()
        has = remote.value
        self.stdin, self.stdout, self.stderr = (remote.take() if has[n] else -1 for n in ("stdin", "stdout", "stderr"))

    def code(self) -> int:
        return int(self._remote.ask(do="code"))

    def resize(self, width: int, height: int) -> None:
        self._remote.ask(do="resize", width=width, height=height)

    def close(self) -> None:
        os.close(self.done)
        self._remote.end()


class RemoteAttachment:
    """An Attachment."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self.socket = remote.take()
        self.stdin = remote.take() if remote.value["stdin"] else -1

    def stdin_ended(self) -> None:
        """The last writer's end is the container's affair."""

    def resize(self, width: int, height: int) -> None:
        with contextlib.suppress(PyrunError):
            self._remote.ask(do="resize", width=width, height=height)

    def close(self) -> None:
        self._remote.end()


def remote_sockets(question: socket.socket) -> list[socket.socket]:
    """Of the pod's network namespace, not connected yet (cri/stream/ports.py)."""
    remote = Remote(question)
    made = [socket.socket(fileno=remote.take()) for _ in range(len(remote.fds))]
    remote.end()
    return made
