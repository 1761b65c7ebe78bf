"""The unpacker's fuzzer: the real sources under ASan write real files, five seconds long."""

from __future__ import annotations

from pathlib import Path

from tests.support.executor.hosted import fuzz, needs_fuzzer


@needs_fuzzer
def test_fuzz() -> None:
    """A longer run is `make fuzz-layer`."""
    fuzz("--fuzz-layer")
    assert not list(Path("/dev/shm").glob("*/canary"))
