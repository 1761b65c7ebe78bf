"""The data plane under sanitizers: its fuzzers for some seconds, and its own tests with a program that has them."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.container.runner import REPO
from tests.support.executor.hosted import BUILD, HOSTED, fuzz, needs_fuzzer


@needs_fuzzer
def test_fuzz() -> None:
    """A longer run is `make fuzz-dataplane`."""
    fuzz("--fuzz-dataplane", programs=2)  # of images, of messages


def test_its_tests_under_asan() -> None:
    """All but the one of its sandbox, in which a sanitizer can't live."""
    subprocess.run([sys.executable, BUILD, "--asan-dataplane", "--out", HOSTED], check=True)
    tests = [f"tests/host/test_dataplane_{name}.py" for name in ("tcp", "udp", "life")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, "-k", "not rights"]
    env = {**os.environ, "PYRUN_TEST_DATAPLANE": str(HOSTED / "pyrun-dataplane")}
    done = subprocess.run(command, cwd=REPO, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "Sanitizer" not in done.stdout + done.stderr and " passed" in done.stdout
