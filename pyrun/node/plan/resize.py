"""Other resources for a pod that runs: what the node has given it, what is asked now, and in which order it is written.

The pod that the planner looks at has the resources that the node has given; only when it gives what is asked does that
become the pod's. Sources: KEP-1287; kubernetes pkg/kubelet/allocation, kuberuntime_manager.go (computePodResizeAction,
doPodResizeAction), pkg/apis/core/validation (ValidatePodResize).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import msgspec

from ...kube.objects.base import Quantity
from ...kube.objects.containers import Container, ResourceRequirements
from ...kube.objects.pods import Pod, PodSpec
from ...kube.objects.status import PodCondition
from ...kube.quantity import milli, whole
from ..qos import pod_limits, qos_class
from .actions import Allocate, Resize, Write
from .back_off import waits_until
from .observed import Attempt, BackOff, CgroupLimits, Desired, Observed
from .restart import is_sidecar
from .start import Step

MEMORY, CPU = "memory", "cpu"
RESOURCES = (MEMORY, CPU)  # in the order in which they are written
WHOLE = ""  # the pod's, as no container has it for a name
PENDING, IN_PROGRESS = "PodResizePending", "PodResizeInProgress"
DEFERRED, INFEASIBLE, ERROR = "Deferred", "Infeasible", "Error"
AGAIN_S = 10.0  # after a write that failed, as a kubelet's next look at the pod


class Amounts(NamedTuple):
    """Of one resource: thousandths of a processor, or bytes; 0 for none."""

    request: int
    limit: int


def amounts(found: ResourceRequirements | None, name: str) -> Amounts:
    count = milli if name == CPU else whole
    both = (found.requests, found.limits) if found is not None else (None, None)
    request, limit = (count((one or {}).get(name, 0)) for one in both)
    return Amounts(request, limit)


def _same(a: ResourceRequirements | None, b: ResourceRequirements | None) -> bool:
    return a == b or all(amounts(a, name) == amounts(b, name) for name in RESOURCES)


def resizable(spec: PodSpec) -> list[Container]:
    """App containers and sidecars: an init container is through before anybody could ask."""
    return [*(c for c in spec.initContainers or () if is_sidecar(c)), *spec.containers]


# --- what the node has given ---


def allocation_of(pod: Pod) -> dict[str, ResourceRequirements]:
    """What its words ask for, by container; by no name what the pod as a whole does."""
    assert pod.spec is not None
    whole = {WHOLE: pod.spec.resources} if pod.spec.resources is not None else {}
    return whole | {c.name: c.resources or ResourceRequirements() for c in resizable(pod.spec)}


def with_allocation(pod: Pod, given: Mapping[str, ResourceRequirements]) -> Pod:
    """Itself where that is what it asks for, or nothing was given yet."""
    assert pod.spec is not None
    others = {c.name for c in resizable(pod.spec) if c.name in given and not _same(c.resources, given[c.name])}
    whole = given.get(WHOLE) if given else pod.spec.resources
    if not others and whole == pod.spec.resources:
        return pod

    def allocated(found: list[Container] | None) -> list[Container] | None:
        if found is None:
            return None
        return [msgspec.structs.replace(c, resources=given[c.name]) if c.name in others else c for c in found]

    spec = msgspec.structs.replace(
        pod.spec,
        containers=allocated(pod.spec.containers),
        initContainers=allocated(pod.spec.initContainers),
        resources=whole,
    )
    return msgspec.structs.replace(pod, spec=spec)


def is_resize(before: Pod, after: Pod) -> bool:
    """They differ in nothing but cpu and memory that may change while it runs: neither taken away, and the quality of
    service is the same."""
    assert before.spec is not None and after.spec is not None
    if before == after or with_allocation(after, allocation_of(before)) != before:
        return False
    if before.spec.resources != after.spec.resources:
        return False
    there = allocation_of(before)
    for c in resizable(after.spec):
        old, new = there[c.name], c.resources or ResourceRequirements()
        for was, now in ((old.requests, new.requests), (old.limits, new.limits)):
            if not _keys(was) <= _keys(now) or _others(was) != _others(now):
                return False
    if loses_limit(before.spec, after.spec):
        return False
    return qos_class(before.spec) == qos_class(after.spec)


def loses_limit(before: PodSpec, after: PodSpec) -> str:
    """The first container whose limit of memory becomes 0, which is none: that no runtime can write while it runs."""
    had = {c.name for c in resizable(before) if amounts(c.resources, MEMORY).limit}
    return next((c.name for c in resizable(after) if c.name in had and not amounts(c.resources, MEMORY).limit), "")


def _keys(found: Mapping[str, Quantity] | None) -> set[str]:
    return set(found or ())


def _others(found: Mapping[str, Quantity] | None) -> dict[str, Quantity]:
    """Of resources that stay as they were at its start."""
    return {name: value for name, value in (found or {}).items() if name not in RESOURCES}


# --- what is to be done ---


def must_restart(c: Container, a: Attempt) -> bool:
    """It has others than it should, and takes them only from its start."""
    if a.resources is None:
        return False
    policies = {one.resourceName: one.restartPolicy for one in c.resizePolicy or ()}
    changed = [name for name in RESOURCES if amounts(a.resources, name) != amounts(c.resources, name)]
    return any(policies.get(name) == "RestartContainer" for name in changed)


def resize(desired: Desired, observed: Observed, now: float) -> Iterator[Step]:
    """Asks for what is not given, and writes what is given and not there yet."""
    if desired.asked is not None and observed.pending is None:
        yield Allocate()
    writes = tuple(_writes(desired, observed))
    if not writes:
        return
    failed = observed.resize_error
    if failed is not None and (again := waits_until(failed, failed.failed, 0.0, now)) > now:
        yield again
    else:
        yield Resize(writes)


def failure(error: str, now: float) -> BackOff:
    return BackOff(AGAIN_S, now, now, error)


def is_in_progress(desired: Desired, observed: Observed) -> bool:
    late = any(not _same(a.resources, c.resources) for c, a in _running(desired, observed))
    return late or (observed.given is not None and observed.given != pod_limits(desired.spec))


def _running(desired: Desired, observed: Observed) -> Iterator[tuple[Container, Attempt]]:
    """Those of which it is known what they have."""
    for c in resizable(desired.spec):
        a = observed.last(c.name)
        if a is not None and a.running and a.resources is not None:
            yield c, a


def _writes(desired: Desired, observed: Observed) -> Iterator[Write]:
    """Memory, then cpu: the pod's cgroup first where it grows, then containers that shrink, then those that grow, and
    at last the pod's where it shrinks, once nothing in it has more. The pod's is never smaller than a container's."""
    pod = observed.given
    if pod is None:
        return
    wanted = pod_limits(desired.spec)
    changes: list[tuple[Container, Attempt]] = []
    ending = False  # one that has other limits until its end
    for c, a in _running(desired, observed):
        if _same(a.resources, c.resources):
            continue
        if a.stop is not None or must_restart(c, a):
            ending = True
        else:
            changes.append((c, a))
    has = {a.id: a.resources or ResourceRequirements() for _, a in changes}
    for name in RESOURCES:
        larger = _larger(pod, wanted, name)
        if larger != pod:
            yield Write("pod", name, limits=larger)
        changed = [(c, a) for c, a in changes if amounts(has[a.id], name) != amounts(c.resources, name)]
        for c, a in sorted(changed, key=lambda one: _grows(one[1].resources, one[0].resources, name)):
            before, after = has[a.id], _merged(has[a.id], c.resources, name)
            limit = 0 if name == CPU or _grows(before, after, name) else amounts(after, name).limit
            yield Write(c.name, name, above=limit, id=a.id, resources=after)
            has[a.id] = after
        smaller = _only(larger, wanted, name)
        if smaller != larger and not ending:
            yield Write("pod", name, above=(smaller.memory or 0) if name == MEMORY else 0, limits=smaller)
            larger = smaller
        pod = larger


def _only(found: CgroupLimits, wanted: CgroupLimits, name: str) -> CgroupLimits:
    if name == MEMORY:
        return replace(found, memory=wanted.memory)
    return replace(found, shares=wanted.shares, quota=wanted.quota)


def _larger(found: CgroupLimits, wanted: CgroupLimits, name: str) -> CgroupLimits:
    if name == MEMORY:
        none = found.memory is None or wanted.memory is None
        return replace(found, memory=None if none else max(found.memory or 0, wanted.memory or 0))
    quota = max(found.quota, wanted.quota) if found.quota and wanted.quota else 0
    return replace(found, shares=max(found.shares, wanted.shares), quota=quota)


def _grows(before: ResourceRequirements | None, after: ResourceRequirements | None, name: str) -> bool:
    """Of its limit, where there is one; else of what it requests."""
    a, b = amounts(before, name), amounts(after, name)
    if a.limit == b.limit:
        return b.request >= a.request
    return a.limit != 0 and (b.limit == 0 or b.limit > a.limit)


def _merged(found: ResourceRequirements, wanted: ResourceRequirements | None, name: str) -> ResourceRequirements:
    """What is found, with one resource as it is wanted."""

    def one(a: Mapping[str, Quantity] | None, b: Mapping[str, Quantity] | None) -> dict[str, Quantity] | None:
        made = {key: value for key, value in (a or {}).items() if key != name}
        made |= {key: value for key, value in (b or {}).items() if key == name}
        return made or None

    after = wanted or ResourceRequirements()
    return msgspec.structs.replace(
        found, requests=one(found.requests, after.requests), limits=one(found.limits, after.limits)
    )


# --- what is told ---


def resize_conditions(desired: Desired, observed: Observed) -> Iterator[PodCondition]:
    if desired.asked is not None and observed.pending is not None:
        reason, message = observed.pending
        yield PodCondition(type=PENDING, status="True", reason=reason, message=message)
    if is_in_progress(desired, observed):
        error = observed.resize_error
        reason, message = (ERROR, error.error) if error is not None else ("", "")
        yield PodCondition(type=IN_PROGRESS, status="True", reason=reason or None, message=message or None)
