"""Runs the runtime under test as a user does, by its command line, with a state directory of its own.

It is the launcher in the tree, or Python on the package where the launcher is not built. PYRUN_TEST_RUNTIME names
another one (runc, crun), which shows what the tests themselves are worth.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.container.bundle import Bundle

REPO = Path(__file__).resolve().parents[3]
TIMEOUT_S = 60.0
GAVE_UP = ("did not die of SIGKILL", "EBUSY")


@dataclass(frozen=True)
class Result:
    """What a command left: its exit status (negative: killed by that signal), stdout and stderr as text."""

    argv: tuple[str, ...]
    rc: int
    out: str
    err: str

    def ok(self) -> Result:
        """Itself, when the command exited 0; fails the test with its output otherwise."""
        assert self.rc == 0, self.describe()
        return self

    def fails(self, rc: int = 1, *texts: str) -> Result:
        """Itself, when the command exited `rc`, said each of `texts` on stderr and showed no traceback."""
        assert self.rc == rc, self.describe()
        assert "Traceback" not in self.err, self.describe()
        for text in texts:
            assert text in self.err, f"{text!r} is not in stderr\n{self.describe()}"
        return self

    def describe(self) -> str:
        return f"{' '.join(self.argv)}\nrc={self.rc}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


def runtime_argv() -> list[str]:
    """The command that starts the runtime under test."""
    chosen = os.environ.get("PYRUN_TEST_RUNTIME")
    if chosen:
        return [shutil.which(chosen) or chosen]
    launcher = REPO / "pyrun" / "bin" / "pyrun"
    if launcher.exists():
        return [str(launcher)]
    return python_argv()


def python_argv() -> list[str]:
    """The command that runs the same verbs without the launcher."""
    return [str(REPO / ".venv" / "bin" / "python"), "-I", "-S", str(REPO / "pyrun" / "__main__.py")]


class Runner:
    """The runtime with its own --root. Calling it runs a command line; its methods are the common verbs."""

    def __init__(self, root: Path, argv: Sequence[str] | None = None) -> None:
        self.root = root
        self.argv = list(argv or runtime_argv())
        self._ids = 0

    def new_id(self) -> str:
        """A container id that this test has not used, and no other test at the same time."""
        self._ids += 1
        return f"t{os.getpid()}-{self.root.name[-12:]}-{self._ids}"

    def command(self, *argv: str | os.PathLike[str]) -> list[str]:
        return [*self.argv, "--root", str(self.root), *(os.fspath(arg) for arg in argv)]

    def __call__(
        self,
        *argv: str | os.PathLike[str],
        input: str | None = None,
        timeout: float = TIMEOUT_S,
        env: Mapping[str, str] | None = None,
        **popen: Any,
    ) -> Result:
        """Runs and waits. Without `input`, stdin is /dev/null. A time-out (seconds) fails the test."""
        command = self.command(*argv)
        stdin: dict[str, Any] = {"stdin": subprocess.DEVNULL} if input is None else {"input": input}
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env=None if env is None else {**os.environ, **env},
            **stdin,
            **popen,
        )
        return Result(tuple(command), done.returncode, done.stdout, done.stderr)

    def popen(self, *argv: str | os.PathLike[str], **popen: Any) -> subprocess.Popen[bytes]:
        """Starts a command line; the test waits for it."""
        return subprocess.Popen(self.command(*argv), **popen)

    def run(self, bundle: Bundle, *options: str | os.PathLike[str], id: str | None = None, **kwargs: Any) -> Result:
        return self("run", "--bundle", bundle.path, *options, id or self.new_id(), **kwargs)

    def create(self, bundle: Bundle, *options: str | os.PathLike[str], id: str | None = None, **kwargs: Any) -> str:
        """Creates a container and returns its id. Its stdio is /dev/null, since it outlives the command."""
        id = id or self.new_id()
        errors = self.root.parent / f"{self.root.name}.{id}.err"
        with open(errors, "wb+") as log:
            stdio: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log} | kwargs
            command = self.command("create", "--bundle", bundle.path, *options, id)
            rc = subprocess.run(command, timeout=TIMEOUT_S, check=False, **stdio).returncode
        text = errors.read_text(errors="replace")
        errors.unlink()
        assert rc == 0, Result(tuple(command), rc, "", text).describe()
        return id

    def create_started(self, bundle: Bundle, *options: str | os.PathLike[str], **kwargs: Any) -> str:
        """Creates and starts; returns the id."""
        id = self.create(bundle, *options, **kwargs)
        self("start", id).ok()
        return id

    def exec(self, id: str, *args: str, options: Sequence[str | os.PathLike[str]] = (), **kwargs: Any) -> Result:
        return self("exec", *options, id, *args, **kwargs)

    def state(self, id: str) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self("state", id).ok().out)
        return state

    def pid(self, id: str) -> int:
        return int(self.state(id)["pid"])

    def wait_status(self, id: str, status: str, timeout: float = 60.0) -> None:
        """Waits until the container has this status."""
        wait_for(lambda: self.state(id)["status"] == status, timeout, f"{id} to be {status}")

    def delete(self, id: str, *options: str, **kwargs: Any) -> Result:
        return self("delete", *options, id, **kwargs)

    def ids(self) -> list[str]:
        """The containers that have a state directory; names with a dot in front are caches."""
        if not self.root.is_dir():
            return []
        return sorted(name for name in os.listdir(self.root) if not name.startswith("."))

    def delete_all(self) -> None:
        """Deletes by force whatever is left; raises, with what was said, when a state directory stays. A delete gives
        up in time what does not end, as on a machine that stood still: then it is done again, for a minute.
        """
        last = time.monotonic() + TIMEOUT_S
        while left := self.ids():
            done = [self("delete", "--force", id) for id in left]
            told = "\n".join(result.describe() for result in done)
            late = any(word in told for word in GAVE_UP) and time.monotonic() < last
            assert late or not self.ids(), f"state directories stay after delete --force: {self.ids()}\n{told}"


def wait_for(condition: Callable[[], bool], timeout: float, what: str) -> None:
    """Polls until `condition()` holds; fails the test after `timeout` seconds, or TIMEOUT_S if that is more."""
    timeout = max(timeout, TIMEOUT_S)
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout} s for {what}"
        time.sleep(0.005)
