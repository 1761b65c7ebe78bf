"""PURE: what the node is short of, and since when; then which pod goes for it.

Source: kubernetes pkg/kubelet/eviction (eviction_manager.go, helpers.go): thresholds that are met, their grace, the
conditions that last for the transition period, the order of pods, the words of a status. ≠ a kubelet: inodes are ranked
by inodes, and the table of ranks is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ...kube.objects.pods import PodSpec
from .thresholds import DISK, MEMORY, PIDS, Threshold

TRANSITION_S = 300.0
CRITICAL = 2_000_000_000  # the least priority of what the system needs
HARD_GRACE_S = 1.0

_WORST = (MEMORY, DISK, PIDS)  # memory before all else: nothing works without


def is_critical(spec: PodSpec | None) -> bool:
    return spec is not None and (spec.priority or 0) >= CRITICAL


@dataclass(frozen=True, slots=True)
class Signal:
    """Bytes, inodes or processes."""

    available: int
    capacity: int


@dataclass(frozen=True, slots=True)
class State:
    """met: the thresholds that are not over yet, with when each was met first. seen: when each condition was there
    last."""

    met: Mapping[Threshold, float] = field(default_factory=dict)
    seen: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pressure:
    """conditions: that the node has. due: the thresholds for which something is to go now, the worst first."""

    state: State
    conditions: frozenset[str]
    due: tuple[Threshold, ...]


def plan_pressure(
    signals: Mapping[str, Signal],
    thresholds: Iterable[Threshold],
    before: State,
    now: float,
    transition: float = TRANSITION_S,
) -> Pressure:
    """A signal that could not be read meets nothing."""
    met = {}
    for one in thresholds:
        signal = signals.get(one.signal)
        if signal is None:
            continue
        limit = one.limit.of(signal.capacity)
        if one in before.met:
            limit += one.reclaim.of(signal.capacity)
        if signal.available < limit:
            met[one] = before.met.get(one, now)
    seen = {**before.seen, **{one.condition: now for one in met}}
    seen = {name: when for name, when in seen.items() if when == now or now - when < transition}
    due = [one for one, first in met.items() if one.grace is None or now - first >= one.grace]
    due.sort(key=lambda one: (_WORST.index(one.condition), one.grace is not None))
    return Pressure(State(met, seen), frozenset(seen), tuple(due))


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pod that runs. usage, requests: by memory, ephemeral-storage (bytes), inodes, pids; what is missing in usage is
    not known. containers: (name, usage, requests) of each. critical: the node needs it."""

    name: str
    usage: Mapping[str, int]
    requests: Mapping[str, int] = field(default_factory=dict)
    priority: int = 0
    critical: bool = False
    containers: tuple[tuple[str, Mapping[str, int], Mapping[str, int]], ...] = ()

    def over(self, resource: str) -> int:
        """What it uses above its request."""
        return self.usage.get(resource, 0) - self.requests.get(resource, 0)


def rank(pods: Iterable[Candidate], resource: str) -> list[Candidate]:
    """The first goes first: of unknown usage; above its request; of the least priority; furthest above it. Nobody
    requests inodes and processes, so there it is priority and then use."""
    requested = resource in ("memory", "ephemeral-storage")
    return sorted(
        (pod for pod in pods if not pod.critical),
        key=lambda pod: (
            resource in pod.usage,
            requested and pod.over(resource) <= 0,
            pod.priority,
            -pod.over(resource),
            pod.name,
        ),
    )


def message(resource: str, threshold: Threshold, signal: Signal | None, pod: Candidate) -> str:
    """As a kubelet writes it into the pod's status."""
    text = f"The node was low on resource: {resource}. "
    if signal is not None:
        limit = quantity(threshold.limit.of(signal.capacity))
        text += f"Threshold quantity: {limit}, available: {quantity(signal.available)}. "
    for name, usage, requests in pod.containers:
        used, request = usage.get(resource, 0), requests.get(resource, 0)
        if used > request:
            text += f"Container {name} was using {quantity(used)}, request is {quantity(request)}, "
            text += f"has larger consumption of {resource}. "
    return text


def table(ranked: Sequence[Candidate], resource: str, most: int = 10) -> str:
    """For the event: who comes when, and why."""
    rows = [
        f"{number}. {pod.name} priority {pod.priority}, uses "
        f"{quantity(pod.usage[resource]) if resource in pod.usage else 'unknown'}"
        f" of {quantity(pod.requests.get(resource, 0))} requested"
        for number, pod in enumerate(ranked[:most], 1)
    ]
    return "; ".join(rows)


def refuses(conditions: Iterable[str], *, qos: str, critical: bool, tolerates: bool) -> tuple[str, str] | None:
    """(reason, message) of a pod that is not taken under these conditions. tolerates: the taint of memory pressure."""
    found = sorted(conditions)
    if not found or critical or (found == [MEMORY] and (qos != "BestEffort" or tolerates)):
        return None
    return "Evicted", f"The node had condition: [{' '.join(found)}]. "


def quantity(count: int) -> str:
    """As Kubernetes writes binary quantities: with the largest suffix that leaves a whole number."""
    for suffix, size in (("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)):
        if count and count % size == 0:
            return f"{count // size}{suffix}"
    return str(count)
