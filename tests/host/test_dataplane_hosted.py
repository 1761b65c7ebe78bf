"""The data plane under sanitizers: its fuzzers for some seconds, and its own tests with a program that has them."""

from __future__ import annotations

from tests.support.executor.hosted import fuzz, needs_fuzzer, own_tests


@needs_fuzzer
def test_fuzz() -> None:
    """A longer run is `make fuzz-dataplane`."""
    fuzz("--fuzz-dataplane", programs=2)  # of images, of messages


def test_its_tests_under_asan() -> None:
    """All but the one of its sandbox, in which a sanitizer can't live."""
    files = [f"tests/host/test_dataplane_{name}.py" for name in ("tcp", "udp", "life")]
    own_tests("--asan-dataplane", "pyrun-dataplane", files, "not rights")
