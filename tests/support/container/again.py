"""A container and the three ways to exec in it, for tests of kept plans of exec."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from pyrun.plan.lifecycle import KEPT_EXECS
from pyrun.runtime.record import unpack
from tests.support.container.runner import Result, Runner, python_argv, wait_for
from tests.support.executor.stub import LAUNCHER, bare_launcher


class Again:
    """A container below `root`: `python` plans, `launcher` does as it is installed, `bare` has no Python to ask."""

    def __init__(self, tmp_path: Path, id: str) -> None:
        self.tmp_path = tmp_path
        self.root = tmp_path / "again"
        self.id = id
        self.python = Runner(self.root, python_argv())
        self.launcher = Runner(self.root, [str(LAUNCHER)])
        self.bare = Runner(self.root, bare_launcher(tmp_path))

    @property
    def directory(self) -> Path:
        return self.root / self.id

    def entries(self) -> list[Path]:
        return [self.directory / name for name in KEPT_EXECS if (self.directory / name).exists()]

    def exec(self, runner: Runner, *words: Any, options: Any = (), **more: Any) -> Result:
        return runner("exec", *options, self.id, *words, **more)

    def warm(self, *words: Any, options: Any = (), quiet: bool = False) -> Result:
        """Execs by Python until the plan is kept: not while somebody edits the sources. What the last one said.
        quiet: it outlives the command."""
        last: list[Result] = []
        before = [path.stat().st_mtime_ns for path in self.entries()]
        null: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)

        def once() -> bool:
            if quiet:
                subprocess.run(self.python.command("exec", *options, self.id, *words), check=True, timeout=60, **null)
            else:
                last[:] = [self.exec(self.python, *words, options=options)]
            return [path.stat().st_mtime_ns for path in self.entries()] != before

        wait_for(once, 30, "the plan to be kept")
        return last[0] if last else Result((), 0, "", "")


def pid_of(one: Again) -> int:
    return unpack((one.directory / "record").read_bytes()).pid


def cgroup_of(one: Again) -> Path:
    return Path(unpack((one.directory / "record").read_bytes()).text("cgroup"))
