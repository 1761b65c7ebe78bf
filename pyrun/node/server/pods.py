"""The API server's pods of this node, followed, as the agent wants to have them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from ...kube.client import Client, path
from ...kube.defaults import default_pod
from ...kube.objects.pods import Pod
from ...kube.watch import Watch
from ..agent.agent import Agent
from ..agent.record import Condition, Record
from .mirrors import MIRROR, Mirrors
from .refers import Refers
from .statuses import Statuses

DONE = ("Succeeded", "Failed")


def record_of(there: Pod) -> Record:
    """PURE: what the agent keeps of it. Of its metadata all that changes by itself is left out."""
    meta, spec = there.metadata, there.spec
    assert meta is not None and spec is not None and meta.uid is not None
    conditions = (there.status and there.status.conditions) or []
    gates = {gate.conditionType for gate in spec.readinessGates or ()}
    grace = spec.terminationGracePeriodSeconds if spec.terminationGracePeriodSeconds is not None else 30
    deleted = None
    if meta.deletionTimestamp is not None:
        grace = meta.deletionGracePeriodSeconds if meta.deletionGracePeriodSeconds is not None else grace
        deleted = datetime.fromisoformat(meta.deletionTimestamp).timestamp() - grace
    kept = msgspec.structs.replace(
        meta, resourceVersion=None, deletionTimestamp=None, deletionGracePeriodSeconds=None, selfLink=None
    )
    return Record(
        uid=meta.uid,
        file="",
        pod=default_pod(msgspec.structs.replace(there, metadata=kept, status=None)),
        created=time.time(),
        deleted=deleted,
        grace=grace,
        api=True,
        gates={c.type: c.status == "True" for c in conditions if c.type in gates},
        conditions={c.type: Condition(c.status, c.lastTransitionTime) for c in conditions if c.lastTransitionTime},
    )


class ServedPods:
    """heard: set with the first list; before that nothing is known to be unwanted."""

    def __init__(
        self,
        client: Client,
        agent: Agent,
        refers: Refers,
        statuses: Statuses,
        mirrors: Mirrors,
        told: Callable[[str], None],
    ) -> None:
        self._agent, self._refers, self._statuses, self._mirrors = agent, refers, statuses, mirrors
        self.heard = False
        loop = asyncio.get_running_loop()

        def replaced(found: list[Pod]) -> None:
            loop.call_soon_threadsafe(self._replaced, found)

        def changed(event: str, one: Pod) -> None:
            loop.call_soon_threadsafe(self._removed if event == "DELETED" else self._changed, one)

        selector = f"spec.nodeName={agent.name}"
        self.watch = Watch(client, path("v1", "pods"), replaced, changed, slim=_pod, told=told, fieldSelector=selector)

    def start(self) -> None:
        self.watch.start()

    def _replaced(self, found: list[Pod]) -> None:
        uids = {one.metadata.uid for one in found if one.metadata is not None}
        agent = self._agent
        for record in [*(a.record for a in agent.actors.values()), *agent.next.values(), *agent.barred.values()]:
            if record.api and record.uid not in uids:
                agent.unserve(record.uid)
        self._mirrors.replaced([one for one in found if _is_mirror(one)])
        for one in found:
            if not _is_mirror(one):
                self._changed(one)
        self.heard = True
        agent.sweep()

    def _changed(self, there: Pod) -> None:
        if _is_mirror(there):
            self._mirrors.seen(there)
            return
        record = record_of(there)
        actor = self._agent.actors.get(record.key)
        known = actor is not None and actor.record.uid == record.uid
        if not known and there.status is not None and there.status.phase in DONE:
            if record.deleted is not None:  # what is told of an end here may come back when nothing is left of it
                self._statuses.seen(record, there)
                self._statuses.gone(record)
            return  # it has run, and its records are lost
        self._statuses.seen(record, there)
        self._refers.acquire(record)
        self._agent.serve(record)

    def _removed(self, there: Pod) -> None:
        """By force, or by us at last."""
        meta = there.metadata
        assert meta is not None and meta.uid is not None
        if _is_mirror(there):
            self._mirrors.removed(there)
            return
        self._agent.unserve(meta.uid)
        self._statuses.forget(meta.uid)
        self._mirrors.look_again()  # it may have had the name of one


def _is_mirror(one: Pod) -> bool:
    """It only shows a pod of a file."""
    return MIRROR in ((one.metadata and one.metadata.annotations) or {})


def _pod(one: dict[str, Any]) -> Pod:
    return msgspec.convert(one, Pod)
