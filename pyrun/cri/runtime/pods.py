"""RunPodSandbox, StopPodSandbox, RemovePodSandbox, PodSandboxStatus, ListPodSandbox and its stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from ... import cri_api as v1
from ...errors import InvalidArgument
from ...pod.pod import Pod
from ..cri import Cri
from ..encoded import Encoded, chunks
from ..info import pod_info
from ..statuses import container_status, matches, pod_item, pod_status

ITEMS = Encoded(pod_item, lambda pod: pod.state)


async def run_pod_sandbox(cri: Cri, request: Any) -> Any:
    handlers = cri.pods.handler_features()
    if request.runtime_handler not in handlers:
        raise InvalidArgument(
            f"runtime_handler: there is no {request.runtime_handler!r}",
            hint=f"handlers are the empty one, {', '.join(filter(None, handlers))}; "
            "others come from [runtimes.NAME] of the configuration of pyrun cri",
        )
    metadata = request.config.metadata
    for field in ("name", "namespace", "uid"):
        if not getattr(metadata, field):
            raise InvalidArgument(f"config.metadata.{field} is missing")
    id = await cri.pods.run(request.config, request.runtime_handler)
    return v1.RunPodSandboxResponse(pod_sandbox_id=id)


async def stop_pod_sandbox(cri: Cri, request: Any) -> Any:
    await cri.pods.stop(request.pod_sandbox_id)
    return v1.StopPodSandboxResponse()


async def remove_pod_sandbox(cri: Cri, request: Any) -> Any:
    await cri.pods.remove(request.pod_sandbox_id)
    return v1.RemovePodSandboxResponse()


async def pod_sandbox_status(cri: Cri, request: Any) -> Any:
    pod = cri.pods.pod(request.pod_sandbox_id)
    response = v1.PodSandboxStatusResponse(status=pod_status(pod), timestamp=0)
    response.containers_statuses.extend(container_status(c) for c in pod.containers.values() if c.visible)
    if request.verbose:
        response.info["info"] = pod_info(pod)
    return response


async def list_pod_sandbox(cri: Cri, request: Any) -> Any:
    return ITEMS.list(_chosen(cri, request.filter))


async def stream_pod_sandboxes(cri: Cri, request: Any) -> AsyncIterator[Any]:
    for message in chunks([ITEMS.item(pod) for pod in _chosen(cri, request.filter)]):
        yield message


def _chosen(cri: Cri, filter: Any) -> list[Pod]:
    if not filter.ByteSize():  # a kubelet asks so, each second
        return [pod for pod in cri.pods.pods.values() if pod.visible]
    found = []
    for pod in cri.pods.pods.values():
        if not pod.visible or (filter.id and not pod.id.startswith(filter.id)):
            continue
        if filter.HasField("state") and pod.state != filter.state.state:
            continue
        if matches(pod.config.labels, filter.label_selector):
            found.append(pod)
    return found
