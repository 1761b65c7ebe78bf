"""pyrun-dns under sanitizers: its fuzzer for some seconds, and its own tests with a program that has them."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.container.runner import REPO
from tests.support.executor.hosted import BUILD, HOSTED, fuzz, needs_fuzzer


@needs_fuzzer
def test_fuzz() -> None:
    """A longer run is `make fuzz-dns`."""
    fuzz("--fuzz-dns", least=500)


def test_its_tests_under_asan() -> None:
    """All but the one of its sandbox, in which a sanitizer can't live."""
    subprocess.run([sys.executable, BUILD, "--asan-dns", "--out", HOSTED], check=True)
    files = ["tests/host/test_dns_responder.py", "tests/host/test_dns_autopath.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    env = {**os.environ, "PYRUN_TEST_DNS": str(HOSTED / "pyrun-dns")}
    done = subprocess.run(
        [*command, "-k", "not may and not idle and not glibc"],
        cwd=REPO,
        env=env,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "Sanitizer" not in done.stdout + done.stderr and " passed" in done.stdout
