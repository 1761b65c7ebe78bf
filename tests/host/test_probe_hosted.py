"""pyrun-probe under sanitizers: its fuzzer for some seconds, and its own tests with a program that has them."""

from __future__ import annotations

from tests.support.executor.hosted import fuzz, needs_fuzzer, own_tests


@needs_fuzzer
def test_fuzz() -> None:
    """A longer run is `make fuzz-probe`."""
    fuzz("--fuzz-probe")


def test_its_tests_under_asan() -> None:
    """All but the one of its sandbox, in which a sanitizer can't live."""
    own_tests("--asan-probe", "pyrun-probe", ["tests/unit/test_node_steady.py"], "not may and not byte_by_byte")
