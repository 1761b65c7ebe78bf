"""A person at a terminal: a pty on which a command runs as the foreground job, typed at and read by the test."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import subprocess
import termios
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

SANE_MODE = 3  # index of lflag in what tcgetattr gives


class TerminalSession:
    """Runs argv with a terminal of rows × columns as its controlling one; stdin, stdout or stderr may be given."""

    def __init__(self, argv: Sequence[str], *, rows: int = 31, columns: int = 101, **streams: Any) -> None:
        self.master, self.slave = pty.openpty()
        self.resize(rows, columns)
        self.mode = termios.tcgetattr(self.slave)
        for name in ("stdin", "stdout", "stderr"):
            streams.setdefault(name, self.slave)
        slave = self.slave
        self.process = subprocess.Popen(
            argv,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0) and None,
            pass_fds=(slave,),
            **streams,
        )
        self.seen = b""

    def resize(self, rows: int, columns: int) -> None:
        termios.tcsetwinsize(self.master, (rows, columns))

    def press(self, data: bytes) -> None:
        os.write(self.master, data)

    def read_until(self, text: bytes, timeout: float = 60.0) -> bytes:
        """Reads until `text` has been seen since the last call; returns what came up to and with it."""
        deadline = time.monotonic() + timeout
        while text not in self.seen:
            ready, _, _ = select.select([self.master], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"waited {timeout} s for {text!r}; read {self.seen!r}"
            self.seen += os.read(self.master, 65536)
        end = self.seen.index(text) + len(text)
        part, self.seen = self.seen[:end], self.seen[end:]
        return part

    def wait(self, timeout: float = 60.0) -> int:
        """The exit status, while what is written is read, so that nobody waits for us."""
        deadline = time.monotonic() + timeout
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it did not end in {timeout} s; read {self.seen!r}"
            if select.select([self.master], [], [], 0.02)[0]:
                self.seen += os.read(self.master, 65536)
        while select.select([self.master], [], [], 0)[0]:
            self.seen += os.read(self.master, 65536)
        return self.process.returncode

    def is_restored(self) -> bool:
        return termios.tcgetattr(self.slave) == self.mode

    def is_raw(self) -> bool:
        return not termios.tcgetattr(self.slave)[SANE_MODE] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def __enter__(self) -> TerminalSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)
