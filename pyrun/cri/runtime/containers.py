"""CreateContainer, StartContainer, StopContainer, RemoveContainer, ContainerStatus, ListContainers and its stream,
ReopenContainerLog, UpdateContainerResources."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from ... import cri_api as v1
from ...errors import InvalidArgument, NotFound
from ...pod import container as life
from ...pod.pod import Container
from ..cri import Cri
from ..encoded import Encoded, chunks
from ..info import container_info
from ..statuses import container_item, container_status, matches

ITEMS = Encoded(container_item, lambda c: c.state)


async def create_container(cri: Cri, request: Any) -> Any:
    if not request.config.metadata.name:
        raise InvalidArgument("config.metadata.name is missing")
    if not request.config.image.image:
        raise InvalidArgument("config.image.image is missing")
    return v1.CreateContainerResponse(
        container_id=await cri.pods.create(request.pod_sandbox_id, request.config, request.sandbox_config)
    )


async def start_container(cri: Cri, request: Any) -> Any:
    c = cri.pods.container(request.container_id)
    await cri.pods.joined.run(("start", c.id), lambda: life.start(cri.pods, c))
    return v1.StartContainerResponse()


async def stop_container(cri: Cri, request: Any) -> Any:
    try:
        c = cri.pods.container(request.container_id)
    except NotFound:
        return v1.StopContainerResponse()
    await life.stop(cri.pods, c, max(0, request.timeout))
    return v1.StopContainerResponse()


async def remove_container(cri: Cri, request: Any) -> Any:
    try:
        c = cri.pods.container(request.container_id)
    except NotFound:
        return v1.RemoveContainerResponse()
    await life.remove(cri.pods, c)
    return v1.RemoveContainerResponse()


async def container_status_(cri: Cri, request: Any) -> Any:
    c = cri.pods.container(request.container_id)
    response = v1.ContainerStatusResponse(status=container_status(c))
    if request.verbose:
        response.info["info"] = await asyncio.to_thread(container_info, cri.pods, c)
    return response


async def list_containers(cri: Cri, request: Any) -> Any:
    return ITEMS.list(_chosen(cri, request.filter))


async def stream_containers(cri: Cri, request: Any) -> AsyncIterator[Any]:
    for message in chunks([ITEMS.item(c) for c in _chosen(cri, request.filter)]):
        yield message


def _chosen(cri: Cri, filter: Any) -> list[Container]:
    if not filter.ByteSize():  # a kubelet asks so, each second
        return [c for c in cri.pods.containers.values() if c.visible]
    found = []
    for c in cri.pods.containers.values():
        if not c.visible or (filter.id and not c.id.startswith(filter.id)):
            continue
        if filter.pod_sandbox_id and not c.pod.id.startswith(filter.pod_sandbox_id):
            continue
        if filter.HasField("state") and c.state != filter.state.state:
            continue
        if matches(c.config.labels, filter.label_selector):
            found.append(c)
    return found


async def reopen_container_log(cri: Cri, request: Any) -> Any:
    await life.reopen_log(cri.pods, cri.pods.container(request.container_id))
    return v1.ReopenContainerLogResponse()


async def update_container_resources(cri: Cri, request: Any) -> Any:
    c = cri.pods.container(request.container_id)
    if request.HasField("windows"):
        raise InvalidArgument("windows: this is Linux")
    await life.update(cri.pods, c, request.linux)
    return v1.UpdateContainerResourcesResponse()
