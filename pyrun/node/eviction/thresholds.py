"""PURE: below which of a node's resources it is under pressure, as a kubelet's flags say it.

Source: kubernetes pkg/kubelet/eviction (helpers.go, ParseThresholdConfig), its defaults in pkg/kubelet/apis/config.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ...errors import InvalidArgument
from ...kube.quantity import whole

MEMORY, DISK, PIDS = "MemoryPressure", "DiskPressure", "PIDPressure"
# Signal → the condition that it brings, and the resource that pods are ranked by.
SIGNALS = {
    "memory.available": (MEMORY, "memory"),
    "nodefs.available": (DISK, "ephemeral-storage"),
    "nodefs.inodesFree": (DISK, "inodes"),
    "imagefs.available": (DISK, "ephemeral-storage"),
    "imagefs.inodesFree": (DISK, "inodes"),
    "pid.available": (PIDS, "pids"),
}
HARD = "memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%,imagefs.available<15%,imagefs.inodesFree<5%"


@dataclass(frozen=True, slots=True)
class Amount:
    """Bytes or a count; share: of the capacity, where it is said by percent."""

    quantity: int = 0
    share: float | None = None

    def of(self, capacity: int) -> int:
        return self.quantity if self.share is None else int(capacity * self.share)


@dataclass(frozen=True, slots=True)
class Threshold:
    """grace: seconds that it may last, None for a hard one. reclaim: how much more than the limit must be there before
    it is over."""

    signal: str
    limit: Amount
    grace: float | None = None
    reclaim: Amount = Amount()

    @property
    def condition(self) -> str:
        return SIGNALS[self.signal][0]

    @property
    def resource(self) -> str:
        return SIGNALS[self.signal][1]


def parse_thresholds(
    hard: Iterable[str], soft: Iterable[str] = (), grace: Iterable[str] = (), reclaim: Iterable[str] = ()
) -> tuple[Threshold, ...]:
    """hard, soft: such as `memory.available<100Mi,nodefs.available<10%`; grace: `memory.available=90` in seconds;
    reclaim: `memory.available=10Mi`. InvalidArgument."""
    least = {name: _amount(value, "--eviction-minimum-reclaim") for name, value in _pairs(reclaim, "=")}
    graces = {}
    for name, value in _pairs(grace, "="):
        if not value.isdecimal():
            raise InvalidArgument(f"--eviction-soft-grace-period {name}={value}: must be seconds")
        graces[name] = float(value)
    found = [Threshold(n, _amount(v, "--eviction-hard"), None, least.get(n, Amount())) for n, v in _pairs(hard, "<")]
    for name, value in _pairs(soft, "<"):
        if name not in graces:
            raise InvalidArgument(f"--eviction-soft {name}: has no --eviction-soft-grace-period")
        found.append(Threshold(name, _amount(value, "--eviction-soft"), graces[name], least.get(name, Amount())))
    return tuple(found)


def _pairs(words: Iterable[str], sign: str) -> list[tuple[str, str]]:
    found = []
    for word in (part for given in words for part in given.split(",") if part):
        name, there, value = word.partition(sign)
        if not there or name not in SIGNALS:
            raise InvalidArgument(f"{word!r} is no SIGNAL{sign}VALUE", hint=f"signals are {', '.join(SIGNALS)}")
        found.append((name, value))
    return found


def _amount(text: str, option: str) -> Amount:
    try:
        if text.endswith("%"):
            share = float(text[:-1]) / 100
            if 0 <= share <= 1:
                return Amount(share=share)
        elif (quantity := whole(text)) >= 0:
            return Amount(quantity)
    except ValueError:
        pass
    raise InvalidArgument(f"{option}: {text!r} is no quantity such as 100Mi, and no percentage such as 10%")
