"""Bad moments and bad input, as far as they can be tried without root."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pyrun.cli.main import main

REPO = Path(__file__).resolve().parents[2]


def test_an_interrupt_while_the_modules_load_is_no_traceback() -> None:
    script = f"""
import runpy, sys
sys.path.insert(0, {str(REPO)!r})
import pyrun.cli.main
def main(argv):
    raise KeyboardInterrupt
pyrun.cli.main.main = main
runpy.run_path({str(REPO / "pyrun" / "__main__.py")!r}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_no_memory_is_no_bug_of_ours(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def run(g: object, o: object) -> int:
        raise MemoryError

    module: Any = ModuleType("pyrun.cli.commands.state")
    module.run = run
    monkeypatch.setitem(sys.modules, "pyrun.cli.commands.state", module)
    assert main(["state", "web1"]) == 1
    said = capfd.readouterr().err
    assert said.startswith("pyrun: state web1: out of memory\n")
    assert "bug" not in said


@pytest.mark.parametrize(
    "file",
    [
        "parent",
        "stage1",
        "ctx",
        "interp",
        "cgroup",
        *(f"steps_{part}" for part in ("fs", "mount", "root", "io", "proc")),
    ],
)
def test_what_a_daemon_links_keeps_nothing_between_calls(file: str) -> None:
    """Several threads run plans at once, so no function of the executor may have a buffer of its own."""
    source = (REPO / "cffi_build" / "executor" / f"{file}.c").read_text()
    kept = re.findall(r"^\t+static (?!const\b)(?!.*\bconst \w+\[)[^(]*;", source, re.MULTILINE)
    assert kept == []
