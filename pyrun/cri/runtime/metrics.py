"""ListMetricDescriptors, ListPodSandboxMetrics and its stream: all metrics of all pods, in one pass in a thread."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from typing import Any

from ... import cri_api as v1
from ...facts import read_text
from ...pod.pod import Container, Pod
from ...pod.stats import Interface, count_open_files, read_cgroup, read_networks
from .. import metrics as made
from ..cri import Cri
from .stats import FIRST_WALK_S, pod_cgroup


async def list_metric_descriptors(cri: Cri, request: Any) -> Any:
    return v1.ListMetricDescriptorsResponse(descriptors=made.descriptors())


async def list_pod_sandbox_metrics(cri: Cri, request: Any) -> Any:
    return v1.ListPodSandboxMetricsResponse(pod_metrics=await _all(cri))


async def stream_pod_sandbox_metrics(cri: Cri, request: Any) -> AsyncIterator[Any]:
    for one in await _all(cri):
        yield v1.StreamPodSandboxMetricsResponse(pod_sandbox_metrics=[one])


async def _all(cri: Cri) -> list[Any]:
    found = [
        (pod, [c for c in pod.containers.values() if c.visible and c.alive])
        for pod in cri.pods.pods.values()
        if pod.ready
    ]
    return await asyncio.to_thread(_collect, cri, found)


# --- in a thread ------------------------------------------------------------------------------------------------------


def _collect(cri: Cri, found: list[tuple[Pod, list[Container]]]) -> list[Any]:
    containers = [c for _, all in found for c in all]
    for c in containers:
        cri.counters.walker.ask(c.id, _upper(c))
    cri.counters.walker.wait([c.id for c in containers], FIRST_WALK_S)
    networks = read_networks({pod.id: box.net for pod, _ in found if (box := pod.sandbox) is not None and box.net})
    text = read_text("/proc/sys/kernel/pid_max").strip()
    limit = int(text) if text.isdecimal() else None
    rooms: dict[int, made.Room | None] = {}
    return [
        v1.PodSandboxMetrics(
            pod_sandbox_id=pod.id,
            metrics=_of_pod(cri, pod, networks.get(pod.id, []), limit),
            container_metrics=[
                v1.ContainerMetrics(container_id=c.id, metrics=_of_container(cri, c, limit, rooms)) for c in all
            ],
        )
        for pod, all in found
    ]


def _of_pod(cri: Cri, pod: Pod, interfaces: list[Interface], thread_limit: int | None) -> list[Any]:
    """Its cgroup's, with all that is in it, and its network's."""
    metadata, cgroup = pod.config.metadata, pod_cgroup(pod)
    labels = ("", _id(cri, cgroup), "", pod.id, metadata.namespace, metadata.name)
    samples = list(made.of_network(interfaces))
    samples += made.of_times(pod.record.created, time.time_ns())
    reading = read_cgroup(cgroup, rare=True) if cgroup else None
    if reading is not None:
        samples += made.of_cgroup(reading, thread_limit)
    return made.metrics(labels, samples)


def _of_container(cri: Cri, c: Container, thread_limit: int | None, rooms: dict[int, made.Room | None]) -> list[Any]:
    metadata, of_pod = c.config.metadata, c.pod.config.metadata
    labels = (metadata.name, _id(cri, c.record.cgroup), c.config.image.image, c.id, of_pod.namespace, of_pod.name)
    samples = list(made.of_request(c.config.linux.resources))
    samples += made.of_times(c.record.started, time.time_ns())
    samples += made.of_files(cri.counters.walker.ask(c.id, _upper(c)), _room(c, rooms))
    reading = read_cgroup(c.record.cgroup, rare=True) if c.record.cgroup else None
    if reading is not None:
        samples += made.of_cgroup(reading, thread_limit)
        samples += made.of_processes(count_open_files(c.record.cgroup))
    return made.metrics(labels, samples)


def _id(cri: Cri, cgroup: str) -> str:
    """Its path among the cgroups, as cAdvisor has it."""
    return cgroup.removeprefix((cri.facts.cgroup_mount or "").rstrip("/"))


def _upper(c: Container) -> str:
    return f"{c.directory}/upper"


def _room(c: Container, known: dict[int, made.Room | None]) -> made.Room | None:
    """Of the file system that its writable layer is on, which most containers have in common."""
    try:
        device = os.lstat(_upper(c)).st_dev
        if device not in known:
            found = os.statvfs(c.directory)
            name = f"{os.major(device)}:{os.minor(device)}"
            known[device] = made.Room(name, found.f_blocks * found.f_frsize, found.f_files, found.f_ffree)
        return known[device]
    except OSError:
        return None
