"""Keeps the pods of Deployments of files, as node/deployments plans it.

Which pods a Deployment has is kept with each pod's record (its `owner`), and nowhere else: an agent that is killed at
any moment knows them again, and with the records lost they are made anew.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from ...kube.objects.apps import Deployment
from ...kube.objects.meta import ObjectMeta, OwnerReference
from ...kube.objects.pods import Pod
from ..deployments.plan import HASH, Decision, Replica, plan_deployment, template_hash
from .actor import Actor
from .record import Record
from .source import Wanted, uid_of

Name = tuple[str, str]
ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # as Kubernetes': no word comes of it
LEAST_S = 0.05  # between two looks at a clock's request


class Deployments:
    """actors: all of the node. begin: of a new pod."""

    def __init__(self, node: str, actors: dict[Name, Actor], begin: Callable[[Record], None]) -> None:
        self._node, self._actors, self._begin = node, actors, begin
        self.wanted: dict[Name, Wanted] = {}
        self._stirred = False
        self._timer: asyncio.TimerHandle | None = None

    def want(self, wanted: dict[Name, Wanted], broken: frozenset[str]) -> None:
        """All that files have now. broken: files with faults, whose pods stay although nobody knows their Deployment
        any more."""
        self.wanted = wanted
        for actor in self._owned():
            if _owner(actor) not in wanted and actor.record.file not in broken:
                actor.delete()
        self.stir()

    def stir(self) -> None:
        """Something has happened to a pod: they are looked at soon."""
        if not self._stirred and self.wanted:
            self._stirred = True
            asyncio.get_running_loop().call_soon(self._look)

    def stop(self) -> None:
        self.wanted = {}
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._stirred = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = time.time()
        wakes = []
        for key in list(self.wanted):
            if any(actor.record.admitted and actor.decision is None for actor in self.pods(key)):
                continue  # after a start of the agent: whoever carries connections must know each pod first
            decision = self.decide(key, now)
            wakes += [decision.wake] if decision.wake is not None else []
            self._carry_out(key, decision)
        if wakes and self.wanted:
            wait = max(min(wakes) - now, LEAST_S)
            self._timer = asyncio.get_running_loop().call_later(wait, self._look)

    def decide(self, key: Name, now: float) -> Decision:
        return plan_deployment(self._deployment(key), [_replica(actor) for actor in self.pods(key)], now)

    def pods(self, key: Name) -> list[Actor]:
        return [actor for actor in self._owned() if _owner(actor) == key]

    def value(self, key: Name) -> dict[str, Any]:
        """The Deployment with its status, as Kubernetes shows it."""
        found: dict[str, Any] = msgspec.to_builtins(self._deployment(key))
        status = msgspec.to_builtins(self.decide(key, time.time()).status)
        return {"apiVersion": "apps/v1", "kind": "Deployment", **found, "status": status}

    def _owned(self) -> list[Actor]:
        return [actor for actor in self._actors.values() if actor.record.owner]

    def _deployment(self, key: Name) -> Deployment:
        found = self.wanted[key].object
        assert isinstance(found, Deployment)
        return found

    def _carry_out(self, key: Name, decision: Decision) -> None:
        for actor in self.pods(key):
            if actor.record.pod.metadata is not None and actor.record.pod.metadata.name in decision.end:
                actor.delete()
        for _ in range(decision.begin):
            self._begin(self._made(key))

    def _made(self, key: Name) -> Record:
        namespace, name = key
        wanted, deployment = self.wanted[key], self._deployment(key)
        hash = template_hash(deployment.spec.template)
        while (namespace, made := f"{name}-{hash}-{_random(5)}") in self._actors:
            pass
        pod = Pod(metadata=_meta(deployment, namespace, made, hash), spec=deployment.spec.template.spec)
        assert pod.spec is not None
        grace = pod.spec.terminationGracePeriodSeconds or 0
        uid = uid_of(pod, self._node)
        return Record(uid=uid, file=wanted.file, pod=pod, created=time.time(), grace=grace, owner=name)


def _meta(deployment: Deployment, namespace: str, name: str, hash: str) -> ObjectMeta:
    template = deployment.spec.template.metadata or ObjectMeta()
    owner = OwnerReference(
        apiVersion="apps/v1",
        kind="Deployment",
        name=(deployment.metadata and deployment.metadata.name) or "",
        uid=(deployment.metadata and deployment.metadata.uid) or "",
        controller=True,
    )
    labels = {**(template.labels or {}), HASH: hash}
    return msgspec.structs.replace(template, name=name, namespace=namespace, labels=labels, ownerReferences=[owner])


def _random(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def _owner(actor: Actor) -> Name:
    return actor.record.key[0], actor.record.owner


def _replica(actor: Actor) -> Replica:
    record = actor.record
    meta = record.pod.metadata or ObjectMeta()
    ready = record.conditions.get("Ready")
    since = datetime.fromisoformat(ready.since).timestamp() if ready is not None and ready.status == "True" else None
    deleted, hash = record.deleted is not None, (meta.labels or {}).get(HASH, "")
    return Replica(meta.name or "", hash, record.created, since, deleted, actor.is_finished)
