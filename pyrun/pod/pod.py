"""A pod and a container as the daemon holds them: the record, the request that it is of, and what is open for it.

All of this belongs to the event loop's thread. What blocks (plans, files, the supervisor) runs in threads, under the
lock of the one that it changes: a pod's while it is made, stopped and removed, a container's likewise.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from .. import cri_api as v1
from .exec_cgroups import ExecCgroups
from .records import (
    CREATED,
    EXITED,
    MAKING,
    NOTREADY,
    READY,
    RUNNING,
    STARTING,
    UNKNOWN,
    ContainerRecord,
    PodRecord,
    write_record,
)

if TYPE_CHECKING:
    from .messages import Known
    from .sandbox import Sandbox
    from .supervisor import Supervisor

CONTAINER_STATES = {
    CREATED: v1.CONTAINER_CREATED,
    STARTING: v1.CONTAINER_CREATED,
    RUNNING: v1.CONTAINER_RUNNING,
    EXITED: v1.CONTAINER_EXITED,
    UNKNOWN: v1.CONTAINER_UNKNOWN,
}


def pod_key(config: v1.Message) -> tuple[str, str, str, int]:
    """By which a kubelet knows a sandbox: two requests with the same one want the same pod."""
    m = config.metadata
    return m.namespace, m.name, m.uid, m.attempt


def container_key(config: v1.Message) -> tuple[str, int]:
    return config.metadata.name, config.metadata.attempt


class Pod:
    """directory: below ROOT/pods; run_directory: below STATE/pods. sandbox: what it has, while it is ready."""

    def __init__(self, record: PodRecord, root: str, state: str) -> None:
        self.record = record
        self.config: v1.Message = v1.PodSandboxConfig.FromString(record.config)
        self.uid = str(self.config.metadata.uid)  # by which it is found
        self.directory = f"{root}/pods/{record.id}"
        self.run_directory = f"{state}/pods/{record.id}"
        self.lock = asyncio.Lock()
        self.containers: dict[str, Container] = {}
        self.sandbox: Sandbox | None = None
        self.supervisor: Supervisor | None = None
        self.watched = -1  # the supervisor's descriptor, while the loop reads it
        self.stopping = False
        self.clearing: set[asyncio.Task[None]] = set()  # of containers that are removed: their files
        self.ips: list[str] = []

    @property
    def id(self) -> str:
        return self.record.id

    def save(self) -> None:
        write_record(f"{self.directory}/pod.json", self.record)

    @property
    def ready(self) -> bool:
        return self.record.state == READY and not self.stopping

    @property
    def visible(self) -> bool:
        return self.record.state != MAKING

    @property
    def state(self) -> int:
        return int(v1.SANDBOX_READY if self.record.state == READY else v1.SANDBOX_NOTREADY)

    def not_ready(self) -> None:
        """From now on nothing is made in it."""
        self.stopping = True
        if self.record.state == READY:
            self.record.state = NOTREADY


class Container:
    """ended: set when its program has; kill_at: when a stop that waits will kill it, on the loop's clock; told: its
    stop signal was sent; letting_go: it is being started, and its end meanwhile waits in end."""

    def __init__(self, record: ContainerRecord, pod: Pod) -> None:
        self.record = record
        self.pod = pod
        self.config: v1.Message = v1.ContainerConfig.FromString(record.config)
        self.directory = f"{pod.directory}/{record.id}"
        self.lock = asyncio.Lock()
        self.ended = asyncio.Event()
        self.stop_changed = asyncio.Event()
        self.kill_at: float | None = None
        self.told = self.letting_go = False
        self.end: Known | None = None
        self.cancel = -1  # while it is made: an eventfd by which that is given up
        self.removing = False
        self.spec: Any = None  # its Spec, read again where None
        self.exec_cgroups = ExecCgroups()
        self.counters: Any = None  # what statistics keep of it
        if record.state == EXITED:
            self.ended.set()

    @property
    def id(self) -> str:
        return self.record.id

    def save(self) -> None:
        write_record(f"{self.directory}/container.json", self.record)

    @property
    def visible(self) -> bool:
        return self.record.state in CONTAINER_STATES and not self.removing

    @property
    def state(self) -> int:
        return int(CONTAINER_STATES.get(self.record.state, v1.CONTAINER_UNKNOWN))

    @property
    def alive(self) -> bool:
        return self.record.state in (CREATED, STARTING, RUNNING, UNKNOWN)
