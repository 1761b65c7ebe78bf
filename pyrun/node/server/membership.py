"""The face: a node agent's place in a cluster. Pods come from the API server, and what becomes of them goes there.

While the server does not answer nothing changes for pods: they run, end and start again as they would, and what is to
be told waits. Nothing that blocks is done in the agent's loop, and what waits for the server has threads of its own.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ...ending import apart
from ...kube.client import Client
from ...kube.kubeconfig import Cluster
from ...kube.objects.status import PodStatus
from ...kube.signing import CLIENT
from ..agent.agent import Agent
from ..agent.events import Event, Subject
from ..agent.record import Record
from ..join.credentials import Credentials, node_subject
from ..join.renewal import Renewal
from .certificate_course import Told
from .event_sink import EventSink
from .mirrors import Mirrors
from .node_object import Machine, node_info
from .pod_certificates import PodCertificates
from .pods import ServedPods
from .refers import Key, Refers
from .registration import Registration
from .statuses import Statuses

TELL_S = 10.0
THREADS = 4  # requests at a time, besides watches


@dataclass(frozen=True, slots=True)
class Joining:
    """labels: of the Node. port: of the kubelet's API on this node, 0 where there is none. credentials: those of
    `pyrun node join`, to be kept. kubeconfig: the file, for commands."""

    cluster: Cluster
    labels: dict[str, str] = field(default_factory=dict)
    port: int = 0
    credentials: Credentials | None = None
    kubeconfig: str = ""


class Membership:
    """Before the agent starts; start() after that."""

    def __init__(self, agent: Agent, joining: Joining, warn: Callable[[str], None]) -> None:
        self._agent, self._joining, self._cri = agent, joining, agent.host.cri
        self._client = Client(joining.cluster)
        self._threads = ThreadPoolExecutor(THREADS, "api")
        self._info = node_info()
        self.statuses = Statuses(self._client, self._call, warn)
        self.certificates = PodCertificates(
            self._client, self._call, agent.name, lambda: self.registration.uid, self._refreshed, self._of_certificate
        )
        self.refers = Refers(self._client, self._call, self._changed, self._refreshed, warn, self.certificates)
        self.events = EventSink(self._client, self._call, agent.name, warn)
        allocatable = agent.host.allocatable
        self.refers.allocatable = {"cpu": allocatable.cpu, "memory": allocatable.memory}
        self.registration = Registration(self._client, self._machine, joining.labels, warn)
        self.mirrors = Mirrors(
            self._client,
            self._call,
            agent,
            self.statuses,
            lambda: self.registration.uid,
            lambda: self.pods.heard,
            warn,
        )
        self.renewal = self._renewal(joining, warn)
        self.pods = ServedPods(self._client, agent, self.refers, self.statuses, self.mirrors, warn)
        agent.heard = lambda: self.pods.heard
        agent.ended = self._ended
        agent.host.told = self._status
        agent.host.served = self.refers.objects
        agent.host.event = self._event

    def _renewal(self, joining: Joining, warn: Callable[[str], None]) -> Renewal | None:
        """Of the certificate by which we are known. Where somebody else gave it, he renews it."""
        if joining.credentials is None:
            return None
        return Renewal(self._client, CLIENT, joining.credentials.client, node_subject(self._agent.name), warn)

    async def _call(self, function: Callable[..., Any], *given: Any, **named: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(function, *given, **named))

    def start(self) -> None:
        self.registration.start()
        self.refers.start()
        self.pods.start()
        self.events.start()
        self.mirrors.start()
        if self.renewal is not None:
            self.renewal.start()

    async def stop(self) -> None:
        """Pods run on, and the Node stays."""
        await self.mirrors.stop()
        self.certificates.close()
        await self.statuses.stop()
        await self.events.stop()
        if self.renewal is not None:
            await apart(self.renewal.stop)
        for stop in (self.pods.watch.stop, self.registration.stop, self.refers.stop):
            await apart(stop)
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    async def tell(self) -> None:
        """What the API server has not been told yet; as long as it may reasonably take."""
        await asyncio.gather(asyncio.to_thread(self.registration.tell, TELL_S), self.statuses.settle(TELL_S))

    def error(self) -> str | None:
        """Why the API server can't be had now."""
        parts = (self.registration, self.pods.watch, self.statuses, self.mirrors, self.renewal)
        return next((part.error for part in parts if part is not None and part.error), None)

    # --- what is told ---

    def _ended(self, record: Record) -> None:
        if record.api:
            self.refers.release(record.uid)
            self.statuses.gone(record)
        else:
            self.mirrors.ended(record)

    def _status(self, record: Record, status: PodStatus) -> None:
        if record.api:
            self.statuses.told(record, status)
        else:
            self.mirrors.status(record, status)

    def _event(self, subject: Subject, event: Event, *, api: bool) -> None:
        if api:
            self.events.add(subject, event)

    def _changed(self, key: Key, uids: set[str]) -> None:
        for actor in self._agent.actors.values():
            if actor.record.uid in uids:
                actor.objects_changed({key})

    def _refreshed(self, uid: str) -> None:
        for actor in self._agent.actors.values():
            if actor.record.uid == uid:
                actor.refreshed()

    def _of_certificate(self, uid: str, told: Told) -> None:
        for actor in self._agent.actors.values():
            if actor.record.uid == uid:
                actor.kept.events.add("Warning", told.reason, told.message)

    def _machine(self) -> Machine:
        """As it is now; called in a thread."""
        host, settings = self._agent.host, self._agent.settings
        ready, _, message = self._cri.pods.network.ready()
        at = os.statvfs(self._cri.root)
        return Machine(
            name=self._agent.name,
            addresses=settings.addresses,
            port=self._joining.port,
            cpu=host.allocatable.cpu,
            memory=host.allocatable.memory,
            disk=at.f_blocks * at.f_frsize,
            pods=settings.pods,
            info=self._info,
            images=tuple(((*one.digests, *one.tags), one.size) for one in self._cri.images.list()),
            pressures=self._agent.evictor.conditions,
            unready="node is shutting down"
            if self._agent.closing
            else ""
            if ready
            else f"the pods' network is not ready: {message}",
        )
