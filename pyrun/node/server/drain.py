"""Empties a node of a cluster as `kubectl drain` does, by the node's own credentials: these may evict its own pods.

Sources: kubernetes staging/src/k8s.io/kubectl/pkg/drain/filters.go; https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from ...errors import DeadlineExceeded, FailedPrecondition, NotFound, Unavailable
from ...kube.client import Client, Conflict, path
from ...kube.watch import Watch

MIRROR = "kubernetes.io/config.mirror"
AGAIN_S = 5.0  # before a pod is tried again that a budget keeps
Pod = dict[str, Any]


class Verdicts(NamedTuple):
    """evict: pods. left: those that stay, with why. refused: those that would be lost, with why and what allows it."""

    evict: list[Pod]
    left: list[tuple[Pod, str]]
    refused: list[tuple[Pod, str]]


def plan_drain(pods: Iterable[Pod], *, force: bool, delete_data: bool) -> Verdicts:
    """PURE. force: also pods that nobody makes anew. delete_data: also those with emptyDir volumes."""
    found = Verdicts([], [], [])
    for pod in pods:
        meta, spec = pod["metadata"], pod["spec"]
        owner = next((one for one in meta.get("ownerReferences") or () if one.get("controller")), None)
        over = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
        data = any("emptyDir" in volume for volume in spec.get("volumes") or ())
        if MIRROR in (meta.get("annotations") or {}):
            found.left.append((pod, "of a file of this node"))
        elif owner is not None and owner.get("kind") == "DaemonSet" and not over:
            found.left.append((pod, f"of DaemonSet {owner.get('name')}, which would make it again"))
        elif owner is None and not over and not force:
            found.refused.append((pod, "no controller makes it anew (--force)"))
        elif data and not over and not delete_data:
            found.refused.append((pod, "what is in its emptyDir would be lost (--delete-emptydir-data)"))
        else:
            found.evict.append(pod)
    return found


def named(pod: Pod) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def cordon(client: Client, node: str, *, on: bool) -> None:
    """Whether new pods are kept away from it. NotFound where the cluster has no such node."""
    client.patch(path("v1", "nodes", name=node), {"spec": {"unschedulable": True if on else None}})


def drain(
    client: Client, node: str, told: Callable[[str], None], *, patience_s: float, force: bool, delete_data: bool
) -> None:
    """Returns when all that can go has gone. FailedPrecondition where pods would be lost, before any is evicted;
    DeadlineExceeded with who is still there."""
    cordon(client, node, on=True)
    told(f"{node} takes no new pods")
    where = path("v1", "pods")
    pods, _ = client.list(where, fieldSelector=f"spec.nodeName={node}")
    verdicts = plan_drain(pods, force=force, delete_data=delete_data)
    for pod, why in verdicts.left:
        told(f"{named(pod)} stays: {why}")
    if verdicts.refused:
        names = "; ".join(f"{named(pod)}: {why}" for pod, why in verdicts.refused)
        raise FailedPrecondition(
            f"nothing was evicted: {names}", hint="with these options, or pyrun node uncordon to let it be"
        )
    if verdicts.evict:
        _Draining(client, node, told).until_gone(verdicts.evict, patience_s)
    told(f"{node} is drained: {len(verdicts.evict)} pods are gone, {len(verdicts.left)} stay")


class _Draining:
    def __init__(self, client: Client, node: str, told: Callable[[str], None]) -> None:
        self._client, self._told = client, told
        self._there: set[str] = set()
        self._changed = threading.Event()
        query = {"fieldSelector": f"spec.nodeName={node}"}
        self._watch = Watch(client, path("v1", "pods"), self._replaced, self._event, slim=_uid, told=told, **query)

    def _replaced(self, uids: list[str]) -> None:
        self._there = set(uids)
        self._changed.set()

    def _event(self, kind: str, uid: str) -> None:
        if kind == "DELETED":
            self._there.discard(uid)
            self._changed.set()

    def until_gone(self, pods: list[Pod], patience_s: float) -> None:
        last = time.monotonic() + patience_s
        to_evict = {pod["metadata"]["uid"]: pod for pod in pods}
        leaving: dict[str, Pod] = {}
        kept: dict[str, str] = {}  # why a pod can't be evicted now
        self._watch.start()
        try:
            while to_evict or leaving:
                for uid, pod in list(to_evict.items()):
                    if (why := self._evict(pod)) is None:
                        leaving[uid] = to_evict.pop(uid)
                        self._told(f"{named(pod)} is evicted")
                    elif kept.get(uid) != why:
                        kept[uid] = why
                        self._told(f"{named(pod)} can't be evicted yet: {why}")
                if time.monotonic() > last:
                    names = ", ".join(named(pod) for pod in (*to_evict.values(), *leaving.values()))
                    raise DeadlineExceeded(f"not gone in {patience_s:.0f} s: {names}", hint="the same command goes on")
                self._wait(min(last - time.monotonic(), AGAIN_S if to_evict else patience_s))
                for uid in [uid for uid in leaving if self._watch.synced.is_set() and uid not in self._there]:
                    self._told(f"{named(leaving.pop(uid))} is gone")
        finally:
            self._watch.stop()

    def _wait(self, seconds: float) -> None:
        self._changed.wait(max(0.0, seconds))
        self._changed.clear()

    def _evict(self, pod: Pod) -> str | None:
        """None where it leaves or has left."""
        meta = pod["metadata"]
        eviction = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": meta["name"], "namespace": meta["namespace"]},
            "deleteOptions": {"preconditions": {"uid": meta["uid"]}},
        }
        try:
            self._client.create(path("v1", "pods", meta["namespace"], meta["name"], "eviction"), eviction)
        except (NotFound, Conflict):  # it is gone, or another one has its name
            return None
        except Unavailable as error:  # a budget, or the server has no time
            return error.text
        return None


def _uid(pod: Pod) -> str:
    return str(pod["metadata"]["uid"])
