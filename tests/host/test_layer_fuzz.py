"""The unpacker's fuzzer: the real sources under ASan write real files, five seconds long."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.executor.hosted import BUILD, HOSTED
from tests.unit.test_c_hosted import has_fuzzer


@pytest.mark.skipif(not has_fuzzer(), reason="needs clang's fuzzer (Debian: clang, libclang-rt-dev)")
def test_fuzz() -> None:
    """A longer run is `make fuzz-layer`."""
    done = subprocess.run(
        [sys.executable, BUILD, "--fuzz-layer", "--seconds", "5", "--out", HOSTED],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    runs = [int(line.split()[-1]) for line in done.stderr.splitlines() if "number_of_executed_units" in line]
    assert len(runs) == 1 and runs[0] > 1000, done.stderr[-4000:]
    assert not list(Path("/dev/shm").glob("*/canary"))
