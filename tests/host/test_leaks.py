"""What the leak check takes for a test's own."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from tests.support.container.leaks import BESIDE, INHERITED, collect_traces
from tests.support.container.runner import REPO

SAMPLE = "tests/host/samples/beside_leaks_sample.py"
# A program that starts others all the time, as a compiler does.
BUSY = "while :; do sleep 0.3 & sleep 0.05; done"


@pytest.mark.parametrize("told", [True, False])
def test_a_run_within_a_run_knows_what_runs_beside_it(told: bool) -> None:
    """Where it isn't told, the others' processes are leaks of its own tests: it is the check that leaves them out."""
    busy = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "sh", "-c", BUSY], start_new_session=True)
    BESIDE.add(busy.pid)
    try:
        before = collect_traces()
        time.sleep(0.3)
        assert not collect_traces().new_since(before)
        env = {**os.environ, INHERITED: " ".join(map(str, BESIDE)) if told else ""}
        argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", SAMPLE]
        done = subprocess.run(argv, cwd=REPO, env=env, capture_output=True, text=True, timeout=120, check=False)
        assert (done.returncode == 0) == told, done.stdout[-3000:]
        assert ("left behind" in done.stdout) != told and "1 passed" in done.stdout
    finally:
        os.killpg(busy.pid, 9)
        busy.wait()
        BESIDE.discard(busy.pid)
