"""Guests run beside the tests of the host, and end with the session, whichever way it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.container.runner import REPO, wait_for
from tests.support.vm import machine as vm_machine

SAMPLE = "tests/vm_host/samples/beside_sample.py"
CLUSTER = "tests/cluster/test_pod_table.py"
ENDS = {"fail": 1, "exit": 7, "SIGINT": 2, "SIGKILL": -signal.SIGKILL}


def pytest_argv(*argv: str) -> list[str]:
    return [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *argv, SAMPLE]


def test_what_needs_a_guest_comes_last() -> None:
    """And the cluster's tests in between, which wait for their programs, while guests run on."""
    argv = pytest_argv("--collect-only", "-q", CLUSTER)
    done = subprocess.run(argv, cwd=REPO, stdout=subprocess.PIPE, text=True, check=True)
    names = [line.partition("::")[::2] for line in done.stdout.splitlines() if "::" in line]
    assert names[0] == (SAMPLE, "test_on_the_host") and names[-1] == (SAMPLE, "test_in_the_guest")
    assert len(names) > 2 and {file for file, _ in names[1:-1]} == {CLUSTER}
    assert "guests" not in done.stdout


@pytest.mark.parametrize("how", ENDS)
def test_an_early_end_takes_the_guest_with_it(how: str, tmp_path: Path) -> None:
    problem = vm_machine.why_not()
    if problem:
        pytest.skip(f"no guest: {problem}")
    found = tmp_path / "found"
    env = os.environ | {"BESIDE_END": how, "BESIDE_FOUND": str(found), "TMPDIR": str(tmp_path)}
    done = subprocess.run(pytest_argv("-x"), cwd=REPO, env=env, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == ENDS[how], done.stdout
    told = json.loads(found.read_text())
    assert len(told["pids"]) >= 2 and len(told["files"]) == 3, told  # the program that runs guests, QEMU; three disks
    root = {str(vm_machine.make_guest() / "root.disk")}

    def left() -> list[str]:
        files = [file for file in told["files"] if file not in root and Path(file).exists()]
        return [*files, *(pid for pid in told["pids"] if Path(f"/proc/{pid}").exists()), *tmp_path.glob("pyrun-vm-*")]

    wait_for(lambda: not left(), 30, "the guest to go")
