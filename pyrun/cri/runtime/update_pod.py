"""UpdatePodSandboxResources: the kubelet has written the pod's cgroup itself and tells us; it is kept in the record."""

from __future__ import annotations

import asyncio
from typing import Any

from ... import cri_api as v1
from ...errors import FailedPrecondition
from ..cri import Cri


async def update_pod_sandbox_resources(cri: Cri, request: Any) -> Any:
    pod = cri.pods.pod(request.pod_sandbox_id)
    async with pod.lock:
        if not pod.ready:
            raise FailedPrecondition(f"pod {pod.id[:13]} is not ready")
        if request.HasField("overhead"):
            pod.record.overhead = request.overhead.SerializeToString(deterministic=True)
        if request.HasField("resources"):
            pod.record.resources = request.resources.SerializeToString(deterministic=True)
        await asyncio.to_thread(pod.save)
    return v1.UpdatePodSandboxResourcesResponse()
