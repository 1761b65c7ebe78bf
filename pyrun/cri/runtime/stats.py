"""ContainerStats, PodSandboxStats, their lists and streams. A request is one pass in a thread, in which all is read
anew, but for what containers have written: that is what the last walk has found."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection
from typing import Any

from ... import cri_api as v1
from ...pod.pod import Container, Pod
from ...pod.stats import Reading, read_cgroup, read_networks
from ..cri import Cri
from ..statuses import matches
from ..usage import container_stats as made_of
from ..usage import pod_stats as pod_made_of
from ..usage import written_layer

FIRST_WALK_S = 0.3  # for which a request waits
CHUNK = 64  # items of a stream's message


async def container_stats(cri: Cri, request: Any) -> Any:
    c = cri.pods.container(request.container_id)
    return v1.ContainerStatsResponse(stats=(await asyncio.to_thread(_of_containers, cri, [c]))[0])


async def list_container_stats(cri: Cri, request: Any) -> Any:
    return v1.ListContainerStatsResponse(stats=await _containers(cri, request.filter))


async def stream_container_stats(cri: Cri, request: Any) -> AsyncIterator[Any]:
    found = await _containers(cri, request.filter)
    for at in range(0, len(found), CHUNK):
        yield v1.StreamContainerStatsResponse(container_stats=found[at : at + CHUNK])


async def pod_sandbox_stats(cri: Cri, request: Any) -> Any:
    pod = cri.pods.pod(request.pod_sandbox_id)
    return v1.PodSandboxStatsResponse(stats=(await asyncio.to_thread(_of_pods, cri, _with_containers([pod])))[0])


async def list_pod_sandbox_stats(cri: Cri, request: Any) -> Any:
    return v1.ListPodSandboxStatsResponse(stats=await _pods(cri, request.filter))


async def stream_pod_sandbox_stats(cri: Cri, request: Any) -> AsyncIterator[Any]:
    found = await _pods(cri, request.filter)
    for at in range(0, len(found), CHUNK):
        yield v1.StreamPodSandboxStatsResponse(pod_sandbox_stats=found[at : at + CHUNK])


async def _containers(cri: Cri, filter: Any) -> list[Any]:
    """Of those that have not ended."""
    found = [
        c
        for c in cri.pods.containers.values()
        if c.visible
        and c.alive
        and c.id.startswith(filter.id)
        and c.pod.id.startswith(filter.pod_sandbox_id)
        and matches(c.config.labels, filter.label_selector)
    ]
    _forget(cri)
    return await asyncio.to_thread(_of_containers, cri, found)


async def _pods(cri: Cri, filter: Any) -> list[Any]:
    """Of those that are ready."""
    found = [
        pod
        for pod in cri.pods.pods.values()
        if pod.ready and pod.id.startswith(filter.id) and matches(pod.config.labels, filter.label_selector)
    ]
    _forget(cri)
    return await asyncio.to_thread(_of_pods, cri, _with_containers(found))


def _with_containers(pods: list[Pod]) -> list[tuple[Pod, list[Container]]]:
    """On the loop, to which these dictionaries belong."""
    return [(pod, [c for c in pod.containers.values() if c.visible and c.alive]) for pod in pods]


def _forget(cri: Cri) -> None:
    cri.counters.keep(cri.pods.pods.keys(), cri.pods.containers.keys())


# --- in a thread ------------------------------------------------------------------------------------------------------


def _of_containers(cri: Cri, containers: list[Container]) -> list[Any]:
    _walk(cri, containers)
    return [_of_container(cri, c) for c in containers]


def _of_pods(cri: Cri, found: list[tuple[Pod, list[Container]]]) -> list[Any]:
    _walk(cri, [c for _, containers in found for c in containers])
    paths = {pod.id: sandbox.net for pod, _ in found if (sandbox := pod.sandbox) is not None and sandbox.net}
    networks = read_networks(paths)
    made = []
    for pod, containers in found:
        reading = read_cgroup(pod_cgroup(pod)) if pod_cgroup(pod) else None
        now = time.time_ns()
        one = pod_made_of(pod, now, reading, _rate(cri, pod.id, reading), networks.get(pod.id, []))
        one.linux.containers.extend(_of_container(cri, c) for c in containers)
        made.append(one)
    return made


def pod_cgroup(pod: Pod) -> str:
    """Below which its supervisor's and its containers' are; "" without."""
    sandbox = pod.sandbox
    return (sandbox.cgroup or "").rpartition("/")[0] if sandbox is not None else ""


def _of_container(cri: Cri, c: Container) -> Any:
    reading = read_cgroup(c.record.cgroup) if c.record.cgroup and c.alive else None
    now = time.time_ns()
    layer = written_layer(cri.counters.walker.ask(c.id, f"{c.directory}/upper"), f"{cri.root}/image")
    return made_of(c, now, reading, _rate(cri, c.id, reading), layer)


def _rate(cri: Cri, id: str, reading: Reading | None) -> int | None:
    """By the monotonic clock, as the other one may be set meanwhile."""
    used = reading.cpu.get("usage_usec") if reading is not None else None
    return None if used is None else cri.counters.rate(id, time.monotonic_ns(), used * 1000)


def _walk(cri: Cri, containers: Collection[Container]) -> None:
    """What these have written, and a moment for the first look at a new one."""
    for c in containers:
        cri.counters.walker.ask(c.id, f"{c.directory}/upper")
    cri.counters.walker.wait([c.id for c in containers], FIRST_WALK_S)
