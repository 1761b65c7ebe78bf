"""What test_guest_ends.py has run in guests: a test that fails, one that fills the disk, one that kills the kernel."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.vm("sample")


def test_fails() -> None:
    answer = 41
    assert answer == 42, "the answer is wrong"


def test_fills_the_disk() -> None:
    free = os.statvfs("/").f_bavail * os.statvfs("/").f_frsize
    with Path("/var/tmp/big").open("ab") as file:
        os.posix_fallocate(file.fileno(), 0, free - (4 << 20))
        while True:
            file.write(bytes(1 << 16))


def test_passes_on_a_full_disk() -> None:
    Path("/var/tmp/big").unlink()


def test_panics() -> None:
    Path("/proc/sysrq-trigger").write_text("c")


def test_after_the_panic() -> None:
    assert float(Path("/proc/uptime").read_text().split()[0]) < 600
