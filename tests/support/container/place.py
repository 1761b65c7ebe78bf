"""pyrun in surroundings that a test has spoilt, by the launcher and by Python, and what its errors must look like."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.container.bundle import Bundle
from tests.support.container.runner import Result, Runner, python_argv, runtime_argv

GRAMMAR = re.compile(r"pyrun: [a-z]+( \S+)?: .+\n(  from config\.json \S+\n)?  hint: .+\n")
UNSHARE = ["unshare", "--mount", "--propagation", "private"]
WAYS = {"launcher": runtime_argv, "python": python_argv}


class Place:
    """Runs pyrun, by the launcher or by Python, where `setup`, a shell script, has changed the surroundings."""

    def __init__(self, root: Path, argv: list[str]) -> None:
        self.root = root
        self.argv = argv

    def here(self, root: Path | None = None) -> Runner:
        return Runner(root or self.root, self.argv)

    def where(self, setup: str, root: Path | None = None, unshare: list[str] = UNSHARE) -> Runner:
        shell = [*unshare, "sh", "-c", f'set -e\n{setup}\n"$@"', "sh"]
        return Runner(root or self.root, [*shell, *self.argv])


def fill(directory: Path, leave: int = 0) -> None:
    """Writes to the last byte, but for `leave`."""
    space = os.statvfs(directory)
    with open(directory / ".filler", "ab", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_bsize - leave or 1)
        if not leave:
            with pytest.raises(OSError, match="No space left"):
                file.seek(0, os.SEEK_END)
                while True:
                    file.write(bytes(4096))


def attempt(runner: Runner, *argv: str | os.PathLike[str], **popen: Any) -> Result:
    """A command whose container, should it come to be, must not hold our pipes open."""
    command = runner.command(*argv)
    with tempfile.TemporaryFile() as file:
        stdio: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": file, "stderr": file}
        rc = subprocess.run(command, timeout=60, check=False, **{**stdio, **popen}).returncode
        file.seek(0)
        return Result(tuple(command), rc, "", file.read().decode(errors="replace"))


def refused(result: Result, *texts: str, grammar: re.Pattern[str] = GRAMMAR) -> None:
    """Exit status 1, these texts, one message by the grammar with a hint."""
    result.fails(1, *texts)
    assert grammar.fullmatch(result.err), result.describe()


def refuses_all(runner: Runner, made: Bundle, *texts: str, grammar: re.Pattern[str] = GRAMMAR, **popen: Any) -> None:
    """create and run are refused, and no state stays."""
    for verb in ("create", "run"):
        refused(attempt(runner, verb, "--bundle", made.path, "new", **popen), *texts, grammar=grammar)
        assert "new" not in runner.ids()


def limited(which: int, value: int) -> Callable[[], None]:
    """preexec_fn"""
    return lambda: resource.setrlimit(which, (value, value))


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that stands still for a while, and then goes on with what came meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
