"""What test_tally.py has run: one test of each result."""

from __future__ import annotations

import time

import pytest


def test_passes() -> None:
    time.sleep(0.2)  # so that it is the slowest


def test_fails() -> None:
    raise AssertionError("as told")


@pytest.mark.parametrize("number", [1, 2])
def test_is_skipped(number: int) -> None:
    pytest.skip("the moon is new")


@pytest.mark.xfail(reason="the sun is down")
def test_is_known_to_fail() -> None:
    raise AssertionError("as told")


@pytest.mark.root
def test_needs_root_and_a_view() -> None:
    pass


def test_not_selected() -> None:
    pass
