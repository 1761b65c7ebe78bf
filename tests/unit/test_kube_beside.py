"""The build beside the tests of continuous integration: it ends with them, and says why it failed."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from tests.support.container.runner import wait_for
from tests.support.kube import build
from tests.support.kube.beside import NAMES, Building

GOES_ON = """
import signal, subprocess
from tests.support.kube.build import end
signal.signal(signal.SIGTERM, end)
print(subprocess.Popen(["sleep", "1000"]).pid, flush=True)
signal.pause()
"""


def test_it_ends_with_all_that_it_has_started(tmp_path: Path) -> None:
    building = Building([sys.executable, "-c", GOES_ON], tmp_path)
    building.start()
    try:
        log = tmp_path / "build.log"
        wait_for(lambda: log.read_text().endswith("\n"), 60, "its child")
        assert building.is_running() and lives(log.read_text().strip())
        assert "has not ended" in build.why_not(tmp_path)
    finally:
        building.stop()
    assert not building.is_running()
    wait_for(lambda: not lives(log.read_text().strip()), 60, "its child to go")


def lives(pid: str) -> bool:
    """And is not merely waited for, as for ever below an init that waits for nobody."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_what_it_said_when_it_failed_is_the_reason(tmp_path: Path) -> None:
    Building(["sh", "-c", "echo no such module; exit 3"], tmp_path).wait(lambda: None)
    assert build.why_not(tmp_path) == " (its build ended with 3: no such module)"
    Building(["true"], tmp_path).wait(lambda: None)
    assert build.why_not(tmp_path) == ""


def test_one_that_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.kube.beside.LONGEST_S", 0.5)
    asked = []
    building = Building(["sleep", "1000"], tmp_path)
    building.wait(lambda: asked.append(time.monotonic()))
    assert not building.is_running() and asked, "guests are to be started meanwhile"
    assert "took more than" in build.why_not(tmp_path)


def test_all_of_them_can_be_built() -> None:
    assert {*NAMES} <= {*build.COMMANDS}
