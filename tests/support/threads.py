"""Threads that tests begin: none may be alive when its test is over, for it may wait at a descriptor whose number then
is another test's.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import thread as executor
from types import FrameType

import pytest

from tests.support.container.runner import REPO

TESTS, PRODUCT = f"{REPO}/tests/", f"{REPO}/pyrun/"
GRACE_S = 60.0


def living_threads() -> frozenset[str]:
    """The names of those that are not pyrun's own, some of which never end, nor an executor's, which ends with it.

    A name is one thread's, or one server's (serving.py): a connection's thread is of whoever made the server, which may
    be a fixture of many tests.
    """
    frames = sys._current_frames()
    known = (one for one in threading.enumerate() if one is not threading.main_thread())
    return frozenset(
        one.name
        for one in known
        if not isinstance(one, threading._DummyThread) and _is_a_tests(frames.get(one.ident or 0))
    )


def _is_a_tests(frame: FrameType | None) -> bool:
    """By where it began. frame: the innermost; None where it ends this moment."""
    mine = frame is not None
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(TESTS):
            mine = True
        elif file == executor.__file__ or file.startswith(PRODUCT):
            mine = False
        frame = frame.f_back
    return mine


def find_left(before: frozenset[str], grace: float = GRACE_S) -> list[str]:
    """The threads that are alive and were not before. Waits up to `grace` s for them to end."""
    deadline = time.monotonic() + grace
    while (left := living_threads() - before) and time.monotonic() < deadline:
        time.sleep(0.02)
    return sorted(left)


@pytest.fixture(autouse=True)
def thread_check() -> Iterator[None]:
    """Fails a test that leaves one of these."""
    before = living_threads()
    yield
    left = find_left(before)
    assert not left, f"threads left behind: {left}"
