"""The engine's side of --console-socket and --pidfd-socket: a listening socket that is sent one file descriptor."""

from __future__ import annotations

import os
import select
import socket
import tempfile
import time
from pathlib import Path
from types import TracebackType


class FdSocket:
    """Listens at `path` (short, wherever the test is). `receive` gives the fd; `read_until` reads from it."""

    def __init__(self) -> None:
        self._directory = tempfile.mkdtemp(prefix="s", dir="/tmp")
        self.path = os.path.join(self._directory, "s")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.path)
        self._listener.listen(1)
        self.fd = -1
        self.name = ""

    def receive(self, timeout: float = 60.0) -> int:
        """Waits for the runtime to connect and send its fd, which stays open until the socket is closed."""
        self._listener.settimeout(timeout)
        try:
            connection, _ = self._listener.accept()
        except TimeoutError:
            known = [line for line in Path("/proc/net/unix").read_text().splitlines() if self.path in line]
            raise AssertionError(f"nobody connected to {self.path} in {timeout} s; the kernel has {known}") from None
        with connection:
            connection.settimeout(timeout)
            data, fds, _, _ = socket.recv_fds(connection, 4096, 1)
        assert len(fds) == 1, f"expected one fd, got {fds}"
        self.fd, self.name = fds[0], data.decode()
        return self.fd

    def read_until(self, text: str, timeout: float = 60.0) -> str:
        """Reads the terminal until `text` has been seen; returns all that was read."""
        seen = b""
        deadline = time.monotonic() + timeout
        while text.encode() not in seen:
            ready, _, _ = select.select([self.fd], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"waited {timeout} s for {text!r}; read {seen!r}"
            try:
                chunk = os.read(self.fd, 65536)
            except OSError:  # EIO: the other side of the terminal is closed
                chunk = b""
            assert chunk, f"the terminal ended before {text!r}; read {seen!r}"
            seen += chunk
        return seen.decode(errors="replace")

    def __enter__(self) -> FdSocket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        self._listener.close()
        os.unlink(self.path)
        os.rmdir(self._directory)
