"""What is said of connections for which the data plane had no room."""

from __future__ import annotations

import pytest

from pyrun.proxy.daemon import bound_line
from pyrun.proxy.messages import SHORT, State


def state(refused: int, flags: int = 0) -> State:
    return State(1, 90, 0, 1, 1, 500, refused, 4711, flags, 1, 100)


@pytest.mark.parametrize(
    ("refused", "before", "words"),
    [
        (0, 0, ""),
        (30, 30, ""),
        (30, 10, "has reset 20 connections for a bound: 90 of 100 are open (LimitNOFILE)"),
        (5, 30, "has reset 5 connections"),  # another one, which counts from the start
    ],
)
def test_refusals_are_told_once(refused: int, before: int, words: str) -> None:
    line = bound_line(state(refused), before)
    assert words in line and bool(line) == bool(words)


def test_a_shortage_is_told_with_the_way_out() -> None:
    assert "prlimit --pid 4711 --nofile" in bound_line(state(0, SHORT))
