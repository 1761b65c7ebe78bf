"""What test_leaks.py has run: a test that leaves nothing, but lasts while others start processes."""

from __future__ import annotations

import time


def test_leaves_nothing() -> None:
    time.sleep(0.5)
