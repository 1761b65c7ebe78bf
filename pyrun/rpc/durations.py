"""How long things took, counted in buckets as Prometheus' histograms have them. One event loop's own: no lock."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from typing import Any

# Seconds; client_golang's, and finer below 5 ms, where most calls are.
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LAG_PERIOD_S = 1.0


class Durations:
    """calls: (service, method, kind) → counts by bucket, the last of which has no bound, and the sum of seconds. codes:
    how each ended. lag: how much later than it should the loop ran what was due."""

    def __init__(self) -> None:
        self.calls: dict[tuple[str, str, str], tuple[list[int], float]] = {}
        self.codes: dict[tuple[str, str, str, str], int] = {}
        self.lag: tuple[list[int], float] = ([0] * (len(BOUNDS) + 1), 0.0)

    def add(self, of: tuple[str, str, str], seconds: float, code: str) -> None:
        self.calls[of] = _counted(self.calls.get(of), seconds)
        self.codes[*of, code] = self.codes.get((*of, code), 0) + 1

    async def watch(self) -> None:
        """The loop's lag, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_PERIOD_S
            await asyncio.sleep(LAG_PERIOD_S)
            self.lag = _counted(self.lag, max(0.0, loop.time() - due))

    def value(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "bounds": BOUNDS,
            "calls": [[*of, counts, total] for of, (counts, total) in sorted(self.calls.items())],
            "codes": [[*of, count] for of, count in sorted(self.codes.items())],
            "lag": self.lag,
        }


def _counted(found: tuple[list[int], float] | None, seconds: float) -> tuple[list[int], float]:
    counts, total = found or ([0] * (len(BOUNDS) + 1), 0.0)
    counts[bisect_left(BOUNDS, seconds)] += 1
    return counts, total + seconds
