"""How a guest's end is told: its own assertion, a panic, a hang, a full disk. Two guests are booted here for it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.container.runner import REPO
from tests.support.vm import machine as vm_machine
from tests.support.vm.job import job_disk

SAMPLE = "tests/vm_host/samples/guest_sample.py"


@pytest.fixture(scope="module", autouse=True)
def guest() -> Path:
    problem = vm_machine.why_not()
    if problem:
        pytest.skip(f"no guest: {problem}")
    return vm_machine.make_guest()


def section(output: str, name: str) -> str:
    """What pytest printed about the failure of this test."""
    start = output.index(f"_ {name} _")
    return output[start : output.index("\n____", start) if "\n____" in output[start:] else len(output)]


def test_reports_of_a_run(tmp_path: Path) -> None:
    """Failures show what happened in the guest, and the run goes on in a new one after a panic."""
    junit = tmp_path / "junit.xml"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v", f"--junit-xml={junit}", SAMPLE]
    done = subprocess.run(command, cwd=REPO, stdout=subprocess.PIPE, text=True, check=False)
    out = done.stdout
    assert done.returncode == 1, out
    verdicts = [line.split()[1] for line in out.splitlines() if line.startswith(SAMPLE) and line.endswith("%]")]
    assert verdicts == ["FAILED", "FAILED", "PASSED", "FAILED", "PASSED"], out
    assert "the answer is wrong" in section(out, "test_fails") and "assert 41 == 42" in section(out, "test_fails")
    assert "No space left on device" in section(out, "test_fills_the_disk")
    assert "the guest's disk is full" in section(out, "test_fills_the_disk")
    assert "the guest's kernel panicked: sysrq triggered crash" in section(out, "test_panics")
    assert re.search(r"^in guest sample \(Linux 6\.\S+\): 2 passed, 3 failed; \d+ s\ndid not run: none\n=", out, re.M)
    assert junit.read_text().count("<testcase") == 5


def test_hang(guest: Path, tmp_path: Path) -> None:
    """A guest that says nothing is asked what is blocked and what runs."""
    with job_disk("#!/bin/sh\nsleep 600\n", with_tests=False) as disk:
        with vm_machine.boot(guest, disk, tmp_path / "console") as machine:
            events = machine.events(silence=5)
            assert next(events)["event"] == "booted"
            with pytest.raises(vm_machine.GuestDied, match="the guest hangs: it said nothing for 5 s") as death:
                list(events)
            assert "sysrq: Show Blocked State" in str(death.value)
            assert "NMI backtrace for cpu" in str(death.value), "stacks, which the console does not show by itself"
    assert machine.process.returncode is not None
