"""What the streaming server asks of whoever has the containers. Every method may block: each is called in a thread.

Descriptors that are handed over belong to the server from then on: it makes them non-blocking, and closes them.
"""

from __future__ import annotations

from typing import Protocol


class Command(Protocol):
    """A program that runs in a container. stdin, stdout, stderr: -1 where there is none; with a terminal stdin and
    stdout are two descriptors of its master. done: becomes readable when it has ended; it stays the backend's."""

    stdin: int
    stdout: int
    stderr: int
    done: int

    def code(self) -> int:
        """Its exit code, 128 + n after signal n; asked when done is readable."""
        ...

    def resize(self, width: int, height: int) -> None: ...

    def close(self) -> None:
        """The server has no more to do with it. It may still run: that is its container's affair."""
        ...


class Attachment(Protocol):
    """What a container's init reads and writes. socket: SEQPACKET, a message is one byte, 1 for stdout and 2 for
    stderr, and what was written; it ends with the container. stdin: -1 where there is none."""

    socket: int
    stdin: int

    def stdin_ended(self) -> None:
        """The client has closed its standard input."""
        ...

    def resize(self, width: int, height: int) -> None: ...

    def close(self) -> None: ...


class Backend(Protocol):
    """Raises PyrunError, which the client is told."""

    def exec(
        self, container: str, argv: tuple[str, ...], *, tty: bool, stdin: bool, stdout: bool, stderr: bool
    ) -> Command: ...

    def attach(self, container: str, *, tty: bool, stdin: bool, stdout: bool, stderr: bool) -> Attachment: ...

    def netns(self, pod: str) -> int:
        """A descriptor of the pod's network namespace, which becomes the server's; -1: the node's own."""
        ...
