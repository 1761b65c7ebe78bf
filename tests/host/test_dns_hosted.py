"""pyrun-dns under sanitizers: its fuzzer for some seconds, and its own tests with a program that has them."""

from __future__ import annotations

from tests.support.executor.hosted import fuzz, needs_fuzzer, own_tests


@needs_fuzzer
def test_fuzz() -> None:
    """A longer run is `make fuzz-dns`."""
    fuzz("--fuzz-dns", least=500)


def test_its_tests_under_asan() -> None:
    """All but the one of its sandbox, in which a sanitizer can't live."""
    files = ["tests/host/test_dns_responder.py", "tests/host/test_dns_autopath.py"]
    own_tests("--asan-dns", "pyrun-dns", files, "not may and not idle and not glibc")
