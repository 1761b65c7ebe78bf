"""How long each step of containers' plans took, as the executor measured it, counted in buckets as Prometheus'
histograms have them: by lane and by the step's name, of which there are only so many.

Containers are made in threads, so there is a lock.
"""

from __future__ import annotations

import threading
from bisect import bisect_left

from ..plan.model.step import LANE_NAMES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..plan.model.plan import Plan
    from ..plan.model.steps import Step

# Seconds. Most steps are one system call.
BOUNDS = (0.000005, 0.00001, 0.000025, 0.0001, 0.001, 0.01, 0.1, 1.0)
_BOUNDS_NS = tuple(int(bound * 1e9) for bound in BOUNDS)


class StepTimes:
    """took: (lane, step) → counts by bucket, the last of which has no bound, and the sum of nanoseconds. failed: how
    often it was this step that failed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._took: dict[tuple[str, type[Step]], tuple[list[int], int]] = {}
        self._failed: dict[tuple[str, type[Step]], int] = {}

    def add(self, plan: Plan, took: list[int], failed: int | None) -> None:
        """took: nanoseconds by the step's index, -1 where it did not run; nothing where nobody has measured."""
        names = [(lane, type(step)) for lane, steps in zip(LANE_NAMES, plan.lanes, strict=True) for step in steps]
        with self._lock:
            for name, spent in zip(names, took, strict=False):
                if spent >= 0:
                    counts, total = self._took.get(name) or ([0] * (len(BOUNDS) + 1), 0)
                    counts[bisect_left(_BOUNDS_NS, spent)] += 1
                    self._took[name] = counts, total + spent
            if failed is not None and failed < len(names):
                self._failed[names[failed]] = self._failed.get(names[failed], 0) + 1

    def value(self) -> dict[str, Any]:
        """For JSON."""
        from ..plan.words.symbols import step_name

        with self._lock:
            took = [[lane, step_name(of), [*counts], total / 1e9] for (lane, of), (counts, total) in self._took.items()]
            failed = [[lane, step_name(of), count] for (lane, of), count in self._failed.items()]
        return {"steps": {"bounds": BOUNDS, "took": took, "failed": failed}}
