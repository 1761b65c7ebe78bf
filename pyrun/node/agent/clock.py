"""A clock that somebody sets, as when a network comes up after a boot: what has begun has no more and no less time."""

from __future__ import annotations

import time
from collections.abc import Callable

LEAST_S = 1.0  # less is the clock being slewed (adjtimex(2)), or between two looks


class Clock:
    """Compares the wall clock with CLOCK_MONOTONIC, which nobody sets."""

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        self._wall, self._steady = wall, steady
        self._apart = wall() - steady()

    def step(self) -> float:
        """By how many seconds it was set since the last call, backwards below 0; 0.0 if it was not."""
        apart = self._wall() - self._steady()
        step, self._apart = apart - self._apart, apart
        return step if abs(step) >= LEAST_S else 0.0
