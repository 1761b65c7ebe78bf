"""How other resources come to a pod that runs: cgroups are written in the planner's order, by the runtime's own update.

What was written is noted before the next, so that an agent that is killed in between goes on from there.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from ... import cri_api as v1
from ...cri.runtime.containers import update_container_resources
from ...errors import PyrunError
from ...facts import read_text
from ...kube.objects.containers import Container, ResourceRequirements
from ...kube.objects.pods import Pod
from ...plan.cgroup.scopes import expand_slice
from ..plan import actions as act
from ..plan.observed import CgroupLimits
from ..plan.resize import CPU, INFEASIBLE, allocation_of
from ..qos import PERIOD_US, container_limits, pod_limits
from .sandbox_config import parent_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ...pod.pod import Pod as Sandbox
    from .kept import Kept
    from .record import Record

    LimitPod = Callable[[str, CgroupLimits], Awaitable[None]]


def know_resources(record: Record, pods: list[Sandbox]) -> None:
    """Of a pod that an agent has left which could not resize, or whose records are lost: all has what its words say.
    What the node could never give is asked again: it may have become another."""
    if record.pending is not None and record.pending[0] == INFEASIBLE:
        record.pending = None
    if not (record.admitted or pods):
        return
    if not record.allocated:
        record.allocated = allocation_of(record.pod)
    for pod in pods:
        for id, c in pod.containers.items():
            if (found := record.allocated.get(c.config.metadata.name)) is not None:
                record.resources.setdefault(id, found)
    if pods and record.given is None:
        record.given = pod_limits(record.desired().spec)


def ask(kept: Kept) -> bool:
    """Whether the node gives what is asked now; if so, it is the pod's."""
    record, events = kept.record, kept.events
    refused = kept.host.resize_refusal(record)
    if refused is None:
        record.allocated, record.pending = allocation_of(record.pod), None
        events.add("Normal", "ResizeStarted", f"Pod resize started: {summary(record.pod)}")
        return True
    if record.pending != refused:
        record.pending = refused
        reason, message = refused
        which = "ResizeInfeasible" if reason == INFEASIBLE else "ResizeDeferred"
        events.add("Warning", which, f"Pod resize {reason}: {summary(record.pod, message)}")
    return False


def summary(pod: Pod, error: str = "") -> str:
    """PURE: a kubelet's words in its events, for programs."""
    assert pod.spec is not None
    found: dict[str, Any] = {}
    for field in ("initContainers", "containers"):
        of = getattr(pod.spec, field)
        if of:
            found[field] = [{"name": c.name, "resources": c.resources or ResourceRequirements()} for c in of]
    if pod.metadata is not None and pod.metadata.generation is not None:
        found["generation"] = pod.metadata.generation
    if error:
        found["error"] = error
    return msgspec.json.encode(found).decode()


async def carry_out(kept: Kept, action: act.Resize, limit_pod: LimitPod) -> None:
    """PyrunError with what came before it written. limit_pod: gives the pod's cgroup limits."""
    record = kept.record
    parent = parent_of(record.desired().spec, record.uid, systemd=kept.host.systemd)
    await asyncio.to_thread(_check, kept, action, parent)
    for write in action.writes:
        if write.limits is not None:
            await limit_pod(parent, write.limits)
            record.given = write.limits
        elif write.resources is not None:
            await _write(kept, write, write.resources)
            record.resources[write.id] = write.resources
        await kept.save()


def _check(kept: Kept, action: act.Resize, parent: str) -> None:
    """That no limit falls below what is in use: the kernel would kill for it."""
    faults = []
    for write in action.writes:
        if write.above and (used := _memory(kept, write.id, parent)) >= write.above:
            what = f"container {write.name}'s" if write.id else "the pod's"
            faults.append(f"{what} limit of {write.above} bytes is below the {used} bytes that are used now")
    if faults:
        raise PyrunError(f"cannot decrease memory limits: {', '.join(faults)}")


def _memory(kept: Kept, id: str, parent: str) -> int:
    """In use, in bytes; 0 where nobody counts it."""
    mount = kept.host.cri.facts.cgroup_mount
    if mount is None:
        return 0
    if id:
        c = kept.host.cri.pods.containers.get(id)
        cgroup = c.record.cgroup if c is not None else ""
    else:
        cgroup = mount.rstrip("/") + (expand_slice(parent) if kept.host.systemd else parent)
    text = read_text(f"{cgroup}/memory.current").strip() if cgroup else ""
    return int(text) if text.isdigit() else 0


async def _write(kept: Kept, write: act.Write, resources: ResourceRequirements) -> None:
    limits = container_limits(Container(name=write.name, resources=resources), kept.record.desired().spec)
    if write.resource == CPU:
        given = v1.LinuxContainerResources(cpu_period=PERIOD_US, cpu_shares=limits.shares, cpu_quota=limits.quota or -1)
    else:
        given = v1.LinuxContainerResources(memory_limit_in_bytes=limits.memory or 0)
    request = v1.UpdateContainerResourcesRequest(container_id=write.id, linux=given)
    await update_container_resources(kept.host.cri, request)
