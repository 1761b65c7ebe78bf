"""What is kept between two looks at the counters: when the CPU's was read last, and what containers have written."""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass

from .written import Walker

WINDOW_NS = 1_000_000_000  # a rate over less says little


@dataclass(slots=True)
class _Sample:
    time: int
    usage: int
    rate: int | None = None


class Counters:
    """Thread-safe. Keys are ids of pods and containers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._samples: dict[str, _Sample] = {}
        self.walker = Walker()

    def rate(self, key: str, time_ns: int, usage_ns: int) -> int | None:
        """ns of CPU a second, since a look at least a second ago; None at the first ones. time_ns: of a clock that
        nobody sets."""
        with self._lock:
            sample = self._samples.get(key)
            if sample is None or usage_ns < sample.usage:
                self._samples[key] = _Sample(time_ns, usage_ns)
                return None
            window = time_ns - sample.time
            if window >= WINDOW_NS:
                rate = (usage_ns - sample.usage) * 1_000_000_000 // window
                sample = self._samples[key] = _Sample(time_ns, usage_ns, rate)
            return sample.rate

    def keep(self, pods: Collection[str], containers: Collection[str]) -> None:
        """Forgets what is of others."""
        with self._lock:
            for key in self._samples.keys() - set(pods) - set(containers):
                del self._samples[key]
        self.walker.keep(containers)
