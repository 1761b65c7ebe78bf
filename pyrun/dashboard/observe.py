"""What the runtime says at one moment, for a page: asked over the CRI, each thing that does not change only once."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Any

from .. import cri_api as v1
from ..errors import NotFound, PyrunError
from ..facts import read_text
from ..logs.query import Query
from ..logs.read import tail
from ..logs.tree import Container, Logs
from ..metrics.node import NodeUsage, collect_node
from ..metrics.summary import plan_rate, plan_traffic
from ..pod.stats.cgroup import parse_pressure
from ..rpc.client import call_all
from .agent import Agent, ask_agent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..cri_api import Rpc

PATIENCE_S = 10.0
# A log that has no line yet is looked at again: after LATE_S while the container has just ended, then after AGAIN_S.
LATE_S, AGAIN_S = 1.0, 30.0
_RUNTIME, _IMAGES = v1.SERVICES["RuntimeService"], v1.SERVICES["ImageService"]


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system that images are on. Bytes."""

    path: str
    total: int
    free: int


@dataclass(frozen=True, slots=True)
class Observed:
    """Messages of the CRI. statuses, networks: by id, of containers and pods. last: a container's last line, by id, of
    those that failed. cores: the node's use in nanoseconds a second; None at first. traffic: the bytes that the node
    has received and sent a second. error: why the runtime did not answer; then there are no messages.
    agent: None where no node agent runs.
    pressure: of cpu, memory and io, in how much of the last 10 s something waited for it (PSI), in percent."""

    time: int
    node: NodeUsage
    total: int
    cpus: int
    cores: int | None = None
    traffic: tuple[int, int] | None = None
    error: str = ""
    version: Any = None
    conditions: tuple[Any, ...] = ()
    pods: tuple[Any, ...] = ()
    containers: tuple[Any, ...] = ()
    stats: tuple[Any, ...] = ()
    images: tuple[Any, ...] = ()
    disk: Disk | None = None
    statuses: dict[str, Any] = field(default_factory=dict)
    networks: dict[str, Any] = field(default_factory=dict)
    last: dict[str, bytes] = field(default_factory=dict)
    agent: Agent | None = None
    pressure: dict[str, float] = field(default_factory=dict)


class Observer:
    """cri: the socket's path. logs: where the logs of pods are."""

    def __init__(self, cri: str, logs: Logs) -> None:
        self._cri = cri
        self._logs = logs
        self._before = collect_node()
        # By (id, state): what is said of a thing changes with its state alone.
        self._details: dict[tuple[str, int], Any] = {}
        # By id: the last line, and until when (time.monotonic()) one that is empty counts: it may be written yet.
        self._last: dict[str, tuple[bytes, float]] = {}

    def observe(self) -> Observed:
        node = collect_node()
        cores = plan_rate(self._before, node)
        traffic = plan_traffic(self._before, node)
        self._before = node
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        own: dict[str, Any] = {
            "time": time.time_ns(),
            "node": node,
            "total": total,
            "cpus": os.cpu_count() or 1,
            "cores": cores,
            "traffic": traffic,
            "agent": ask_agent(os.path.dirname(self._cri)),
            "pressure": _pressure(),
        }
        try:
            return Observed(**own, **self._ask())
        except PyrunError as error:
            return Observed(**own, error="; ".join(error.lines()))

    def _ask(self) -> dict[str, Any]:
        version, status, pods, containers, stats, images, disks = call_all(
            self._cri,
            [
                (_RUNTIME["Version"], v1.VersionRequest()),
                (_RUNTIME["Status"], v1.StatusRequest()),
                (_RUNTIME["ListPodSandbox"], v1.ListPodSandboxRequest()),
                (_RUNTIME["ListContainers"], v1.ListContainersRequest()),
                (_RUNTIME["ListPodSandboxStats"], v1.ListPodSandboxStatsRequest()),
                (_IMAGES["ListImages"], v1.ListImagesRequest()),
                (_IMAGES["ImageFsInfo"], v1.ImageFsInfoRequest()),
            ],
            PATIENCE_S,
        )
        statuses = self._detail(
            [(one.id, one.state) for one in containers.containers],
            _RUNTIME["ContainerStatus"],
            lambda id: v1.ContainerStatusRequest(container_id=id),
        )
        networks = self._detail(
            [(one.id, one.state) for one in pods.items],
            _RUNTIME["PodSandboxStatus"],
            lambda id: v1.PodSandboxStatusRequest(pod_sandbox_id=id),
        )
        known = {(one.id, one.state) for one in (*containers.containers, *pods.items)}
        self._details = {key: value for key, value in self._details.items() if key in known}
        return {
            "version": version,
            "conditions": tuple(status.status.conditions),
            "pods": tuple(pods.items),
            "containers": tuple(containers.containers),
            "stats": tuple(stats.stats),
            "images": tuple(images.images),
            "disk": _disk(disks),
            "statuses": statuses,
            "networks": networks,
            "last": self._last_lines(pods.items, containers.containers, statuses),
        }

    def _detail(self, wanted: list[tuple[str, int]], rpc: Rpc, request: Callable[[str], Any]) -> dict[str, Any]:
        """The status of each that is still there."""
        missing = [key for key in wanted if key not in self._details]
        try:
            answers = call_all(self._cri, [(rpc, request(id)) for id, _ in missing], PATIENCE_S)
            self._details |= {key: answer.status for key, answer in zip(missing, answers, strict=True)}
        except NotFound:  # one has gone meanwhile
            for key in missing:
                try:
                    [answer] = call_all(self._cri, [(rpc, request(key[0]))], PATIENCE_S)
                except NotFound:
                    continue
                self._details[key] = answer.status
        return {key[0]: self._details[key] for key in wanted if key in self._details}

    def _last_lines(self, pods: Any, containers: Any, statuses: dict[str, Any]) -> dict[str, bytes]:
        """What failed containers said last, if they are the newest of their name: it is mostly the reason."""
        newest = {(one.pod_sandbox_id, one.metadata.name): one for one in sorted(containers, key=_created)}
        failed = {one.id: one for one in newest.values() if one.id in statuses and statuses[one.id].exit_code}
        now = time.monotonic()
        known = {id: kept for id, kept in self._last.items() if id in failed and (kept[0] or now < kept[1])}
        if wanted := failed.keys() - known.keys():
            named = {pod.id: (pod.metadata.namespace, pod.metadata.name, pod.metadata.uid) for pod in pods}
            try:
                there = {(c.namespace, c.pod, c.uid, c.name): c for c in self._logs.containers()}
            except PyrunError:
                there = {}
            for id in wanted:
                one = failed[id]
                logged = there.get((*named.get(one.pod_sandbox_id, ("", "", "")), one.metadata.name))
                ended = (time.time_ns() - statuses[id].finished_at) / 1e9
                known[id] = (_last_line(logged), now + (LATE_S if ended < AGAIN_S else AGAIN_S))
        self._last = known
        return {id: line for id, (line, _) in known.items()}


def _last_line(logged: Container | None) -> bytes:
    """On stderr, if there is one."""
    said = [line for line in (tail(logged, Query(), 20) if logged else []) if line.content.strip()]
    errors = [line for line in said if line.stream == "stderr"]
    return (errors or said)[-1].content if said else b""


def _pressure() -> dict[str, float]:
    found = {name: parse_pressure(read_text(f"/proc/pressure/{name}")) for name in ("cpu", "memory", "io")}
    return {name: lines["some"].avg10 for name, lines in found.items() if "some" in lines}


def _created(one: Any) -> int:
    return int(one.created_at)


def _disk(disks: Any) -> Disk | None:
    for one in disks.image_filesystems:
        try:
            about = os.statvfs(one.fs_id.mountpoint)
        except OSError:
            continue
        return Disk(one.fs_id.mountpoint, about.f_blocks * about.f_frsize, about.f_bavail * about.f_frsize)
    return None
