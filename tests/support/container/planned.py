"""A planner in a thread of the test, and the ways to run pyrun with it and without."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyrun.cli.planner import NAME, Planner
from tests.support.container.runner import Result, Runner, python_argv, wait_for
from tests.support.executor.stub import LAUNCHER, TO_PYTHON, bare_launcher

TRIES = 20  # an answer that is late on a busy machine is none


class Noting(Planner):
    """Remembers its answers."""

    def __init__(self, listener: socket.socket, launcher: str) -> None:
        super().__init__(listener, launcher)
        self.answers: list[bytes] = []

    def _reply(self, connection: socket.socket) -> bytes:
        answer = super()._reply(connection)
        self.answers.append(answer)
        return answer


def listen(root: Path) -> socket.socket:
    root.mkdir(mode=0o700, exist_ok=True)
    (root / NAME).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(root / NAME))
    listener.listen(16)
    return listener


class Planned:
    """`python` plans; `bare` has no Python to ask, so what it does the planner has planned; `launcher` is as installed,
    and another pyrun than the planner's, so it gets no answer, unless it is the one to be answered."""

    def __init__(self, tmp_path: Path, answered: str | None = None) -> None:
        self.root = tmp_path / "planned"
        bare = bare_launcher(tmp_path)
        self.python = Runner(self.root, python_argv())
        self.launcher = Runner(self.root, [str(LAUNCHER)])
        self.bare = Runner(self.root, bare)
        self.planner = Noting(listen(self.root), answered or bare[0])
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._stop.is_set():
            self.planner.serve(0.05)

    def served(self, *argv: Any, **more: Any) -> Result:
        """What the bare launcher does when it has got an answer in time. None may also mean that the planner was late
        in taking the call, or the launcher in saying what it wants."""
        for _ in range(TRIES):
            done = self.bare(*argv, **more)
            if done.rc != TO_PYTHON:
                break
        return done

    def refused(self, call: Callable[[], int]) -> str:
        """The planner's reason for no answer to this call, which returns the exit code. Fails the test where there is
        an answer. On a busy machine the caller may give up before the planner has taken its call, and be gone when it
        is looked for."""
        before = list(self.planner.answers)
        for _ in range(TRIES):
            self.planner.why = ""
            assert call() == TO_PYTHON
            wait_for(lambda: self.planner.why != "", 30, "the planner to take the call")
            if not self.planner.why.startswith(("FileNotFoundError", "ProcessLookupError", "BrokenPipeError")):
                break
        assert self.planner.answers == before
        return self.planner.why

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.planner.listener.close()
        (self.root / NAME).unlink(missing_ok=True)
        self.python.delete_all()
