"""What the tests of `pyrun dns run` and `pyrun proxy run` as processes of their own have in common."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0


def until(right: Callable[[], Any], what: str | Callable[[], str], patience_s: float = PATIENCE_S) -> Any:
    """What `right` returns once that is true. AssertionError with `what` when it never is."""
    deadline = time.monotonic() + patience_s
    while True:
        if found := right():
            return found
        assert time.monotonic() < deadline, what if isinstance(what, str) else what()
        time.sleep(0.02)


class Daemon:
    """A daemon over a directory of objects. program: the one in C that it starts."""

    def __init__(self, directory: Path, program: str) -> None:
        self.objects, self.state, self.log = directory / "objects", directory / "state", directory / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.home = REPO  # where its package is
        self._program = program
        self.objects.mkdir()

    def install(self, home: Path) -> Path:
        """The package in another place, with a program of its own, whose path is returned; for start()."""
        package, programs = home / "pyrun", home / "pyrun" / "bin"
        programs.mkdir(parents=True)
        for one in (REPO / "pyrun").iterdir():
            if one.name != "bin":
                (package / one.name).symlink_to(one)
        shutil.copy(REPO / "pyrun" / "bin" / self._program, programs)
        self.home = home
        return programs / self._program

    def write(self, text: str, name: str = "objects.yaml") -> None:
        """A file of objects, moved into place."""
        path = self.objects / f".{name}.new"
        path.write_text(text)
        path.rename(self.objects / name)

    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def kill(self) -> None:
        """As the kernel's OOM killer does it: what is in force stays."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
