"""PURE: a pod's quality of service, and the cgroups, weights and scores that follow from its resources.

Sources: kubernetes pkg/apis/core/v1/helper/qos, pkg/kubelet/cm (helpers_linux.go, qos_container_manager_linux.go),
pkg/kubelet/qos/policy.go: shares become cpu.weight by
plan/cgroup/resources.py's cpu_weight().
"""

from __future__ import annotations

from collections.abc import Mapping

from ..kube.objects.base import Quantity
from ..kube.objects.containers import Container, ResourceRequirements
from ..kube.objects.pods import PodSpec
from ..kube.quantity import milli
from ..kube.resources import container_requests, counted, limits, requests, summed
from .plan.observed import CgroupLimits
from .plan.restart import is_sidecar

GUARANTEED, BURSTABLE, BEST_EFFORT = "Guaranteed", "Burstable", "BestEffort"
PERIOD_US = 100_000
LEAST_QUOTA_US = 1000
LEAST_SHARES, MOST_SHARES = 2, 262_144


def qos_class(spec: PodSpec) -> str:
    """Guaranteed: all have limits of cpu and memory and request just those. The pod's own resources count first."""
    found = [spec.resources] if has_own(spec) else _resources(spec)
    set_ = [amounts for r in found if r for amounts in (_positive(r.requests), _positive(r.limits)) if amounts]
    if not set_:
        return BEST_EFFORT
    for r in found:
        limits, requests = _positive(r.limits if r else None), _positive(r.requests if r else None)
        if limits.keys() < {"cpu", "memory"} or limits != requests:
            return BURSTABLE
    return GUARANTEED


def has_own(spec: PodSpec) -> bool:
    """Resources of the pod as a whole (KEP-2837)."""
    own = spec.resources
    return own is not None and any(n in ("cpu", "memory") for n in (*(own.requests or ()), *(own.limits or ())))


def _resources(spec: PodSpec) -> list[ResourceRequirements | None]:
    return [c.resources for c in [*(spec.initContainers or ()), *spec.containers]]


def _positive(found: Mapping[str, Quantity] | None) -> dict[str, int]:
    return {n: milli(q) for n, q in (found or {}).items() if n in ("cpu", "memory") and milli(q) > 0}


def pod_requests(spec: PodSpec) -> dict[str, int]:
    """What the pod needs of a node: what its containers request, but what the pod itself says counts first; overhead is
    added."""
    total = container_requests(spec)
    total.update(counted(spec.resources.requests if spec.resources else None))
    return summed(total, counted(spec.overhead))


def shares(thousandths: int) -> int:
    return min(max(LEAST_SHARES, thousandths * 1024 // 1000), MOST_SHARES) if thousandths else LEAST_SHARES


def quota(thousandths: int) -> int:
    """Of cpu.max, in µs a period; 0: no limit."""
    return max(LEAST_QUOTA_US, thousandths * PERIOD_US // 1000) if thousandths else 0


def pod_limits(spec: PodSpec) -> CgroupLimits:
    """Of the pod's cgroup. A limit of all containers only where each of them has one; 0 is none."""
    wanted = pod_requests(spec)
    own = counted(spec.resources.limits if spec.resources else None)
    kept: list[Container] = [*(c for c in spec.initContainers or () if is_sidecar(c)), *spec.containers]
    once: list[Container] = [c for c in spec.initContainers or () if not is_sidecar(c)]

    def limit(name: str) -> int | None:
        if own.get(name):
            return own[name]
        if not all(limits(c).get(name) for c in [*kept, *once]):
            return None
        return max([sum(limits(c)[name] for c in kept), *(limits(c)[name] for c in once)])

    return CgroupLimits(shares(wanted.get("cpu", 0)), quota(limit("cpu") or 0), limit("memory"))


def container_limits(c: Container, spec: PodSpec | None = None) -> CgroupLimits:
    """spec: its pod's, whose own limits are those of a container that has none."""
    whole = counted(spec.resources.limits if spec is not None and spec.resources else None)
    own, wanted = limits(c), requests(c)
    found = {name: own.get(name) or whole.get(name, 0) for name in ("cpu", "memory")}
    return CgroupLimits(shares(wanted.get("cpu", found["cpu"])), quota(found["cpu"]), found["memory"] or None)


def cgroup_path(uid: str, qos: str) -> str:
    """Of a pod, below the cgroup root, by the driver cgroupfs: the kubelet's names, so that tools find them."""
    middle = {GUARANTEED: "", BURSTABLE: "burstable/", BEST_EFFORT: "besteffort/"}[qos]
    return f"/kubepods/{middle}pod{uid}"


def cgroup_slice(uid: str, qos: str) -> str:
    """The same by the driver systemd: the innermost slice."""
    middle = {GUARANTEED: "", BURSTABLE: "burstable-", BEST_EFFORT: "besteffort-"}[qos]
    return f"kubepods-{middle}pod{uid.replace('-', '_')}.slice"


def oom_score_adj(c: Container, spec: PodSpec, capacity: int, *, critical: bool = False) -> int:
    """capacity: the node's memory in bytes. A sidecar has at most what the app containers have."""
    qos = qos_class(spec)
    if critical or qos == GUARANTEED:
        return -997
    if qos == BEST_EFFORT:
        return 1000
    more = _left_for_each(spec)
    own = _score(c, more, capacity)
    if is_sidecar(c):
        return min([own, *(_score(app, more, capacity) for app in spec.containers)])
    return own


def _left_for_each(spec: PodSpec) -> int:
    """Bytes of what the pod as a whole requests and no container does, evenly."""
    whole = counted(spec.resources.requests if spec.resources else None).get("memory", 0)
    left = whole - container_requests(spec).get("memory", 0) if whole else 0
    return left // (len(spec.containers) + len(spec.initContainers or ()))


def _score(c: Container, more: int, capacity: int) -> int:
    return min(max(3, 1000 - 1000 * (requests(c).get("memory", 0) + more) // max(capacity, 1)), 999)
