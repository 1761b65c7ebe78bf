"""PURE: which images go when the disk is full, and why each of the others stays.

Source: kubernetes pkg/kubelet/images/image_gc_manager.go: above the high mark down to the low one, the longest unused
first. ≠ a kubelet: an image that a known pod wants stays although nothing of it runs now, what is freed is counted by
layers that nobody else has, and nothing goes in vain where it is not images that fill the disk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

LEAST_SHARE = 0.1  # of what is wanted: for less, no image goes that would have to be pulled again


@dataclass(frozen=True, slots=True)
class Stored:
    """id: `sha256:…`. layers: diff id → bytes. pulled, used: seconds since 1970, used never before pulled. holders: who
    holds it. wanted: the pod that names it, if any."""

    id: str
    name: str
    layers: Mapping[str, int]
    pulled: float
    used: float
    pinned: bool = False
    holders: tuple[str, ...] = ()
    wanted: str = ""

    @property
    def bytes(self) -> int:
        return sum(self.layers.values())


@dataclass(frozen=True, slots=True)
class Disk:
    """Of the file system with the images, in bytes. available: to anybody (statvfs's f_bavail)."""

    size: int
    available: int

    @property
    def percent(self) -> int:
        """Of it in use, as a kubelet rounds it."""
        return 100 - self.available * 100 // self.size if self.size else 0


@dataclass(frozen=True, slots=True)
class Policy:
    """high, low: percent of the disk in use (imageGCHighThresholdPercent and Low). least_age: seconds since it was
    pulled (imageMinimumGCAge). most_age: seconds without use after which it goes anyhow (imageMaximumGCAge); 0: never.
    """

    high: int = 85
    low: int = 80
    least_age: float = 120.0
    most_age: float = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """frees: bytes of layers that go with it."""

    image: Stored
    goes: bool
    why: str
    frees: int = 0


@dataclass(frozen=True, slots=True)
class Garbage:
    """verdicts: those that go first, in the order in which they go. wanted: bytes to be freed for the disk's sake.
    why: what the disk is like, and what fills it where images do not."""

    verdicts: tuple[Verdict, ...]
    wanted: int
    why: str

    @property
    def going(self) -> tuple[Verdict, ...]:
        return tuple(v for v in self.verdicts if v.goes)

    @property
    def frees(self) -> int:
        return sum(v.frees for v in self.verdicts)

    @property
    def short(self) -> int:
        """Bytes that are wanted, and that no image may give."""
        return max(0, self.wanted - self.frees)


def plan_image_garbage(
    images: Iterable[Stored], disk: Disk, policy: Policy, now: float, *, all: bool = False
) -> Garbage:
    """all: every image that may go does, whatever the disk is like (before a pod is evicted)."""
    found = sorted(images, key=lambda one: (one.used, one.pulled, one.id))
    kept = {one.id: why for one in found if (why := _why_kept(one, policy, now))}
    left = Counter(layer for one in found for layer in one.layers)
    free = [one for one in found if one.id not in kept]
    over = disk.percent >= policy.high
    wanted = max(0, disk.size * (100 - policy.low) // 100 - disk.available) if over else 0
    possible = _frees(free, Counter(left))
    vain = not all and possible < wanted * LEAST_SHARE
    verdicts: list[Verdict] = []
    freed = 0
    for one in free:
        old = policy.most_age > 0 and now - one.used > policy.most_age
        if not (all or old or (freed < wanted and not vain)):
            verdicts.append(Verdict(one, False, _why_not(disk, policy, over, vain)))
            continue
        frees = _frees([one], left)
        freed += frees
        unused = f"not used for {_span(now - one.used)}"
        verdicts.append(Verdict(one, True, f"{unused}, longer than {_span(policy.most_age)}" if old else unused, frees))
    verdicts += [Verdict(one, False, kept[one.id]) for one in found if one.id in kept]
    return Garbage(
        tuple(sorted(verdicts, key=lambda v: not v.goes)),
        wanted,
        _told(found, disk, policy, wanted, possible),
    )


def _why_kept(one: Stored, policy: Policy, now: float) -> str:
    if one.holders:
        more = len(one.holders) - 1
        return f"container {one.holders[0][:13]}{f' and {more} more' if more else ''} has it"
    if one.pinned:
        return "it is pinned"
    if one.wanted:
        return f"pod {one.wanted} wants it"
    if now - one.pulled < policy.least_age:
        return f"it is here for less than {_span(policy.least_age)}"
    return ""


def _why_not(disk: Disk, policy: Policy, over: bool, vain: bool) -> str:
    if not over:
        return f"the disk has room: {disk.percent} % are in use, and images go from {policy.high} % on"
    return "it would not help" if vain else f"{policy.low} % is reached without it"


def _frees(images: Sequence[Stored], left: Counter[str]) -> int:
    """Takes them out of `left`, how many images have each layer."""
    freed = 0
    for one in images:
        for layer, count in one.layers.items():
            left[layer] -= 1
            if not left[layer]:
                freed += count
    return freed


def _told(images: Sequence[Stored], disk: Disk, policy: Policy, wanted: int, possible: int) -> str:
    text = f"{disk.percent} % of the disk are in use; images go from {policy.high} % on, down to {policy.low} %"
    if not wanted:
        return text
    layers = {layer: count for one in images for layer, count in one.layers.items()}
    of_images = sum(layers.values())
    others = max(0, disk.size - disk.available - of_images)
    text += f": {_size(wanted)} to be freed. Images take {_size(of_images)}, all else {_size(others)}"
    if possible < wanted:
        text += f"; images can give {_size(possible)} at most"
    return text


def _size(count: int) -> str:
    for suffix, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.4g} {suffix}"
    return f"{count} B"


def _span(seconds: float) -> str:
    for suffix, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {suffix}"
    return f"{seconds:.0f} s"
