"""The agent's pods for the proxy and the DNS: what Services select, and whether it is ready by its probes."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

import msgspec

from ...kube.feed.store import Key, Store, Told
from ...kube.objects.status import PodStatus
from ..agent.record import Record

SOURCE = "pods of this node"
PATIENCE_S = 30.0


class Pods:
    """Thread-safe. The agent tells, and any number of stores have what was told."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._patience: threading.Timer | None = None
        self._awaited: set[str] = set()  # pods of which nothing has been told yet, by uid
        self._lock = threading.Lock()
        self._pods: dict[str, tuple[Key, dict[str, Any]]] = {}  # by uid
        self._stores: list[Store] = []

    def expect(self, uids: Iterable[str]) -> None:
        """Before any store is fed: these pods are there, and until each is told of nobody knows which are ready."""
        self._awaited.update(uids)
        if self._awaited:
            self._patience = threading.Timer(PATIENCE_S, self._wait_no_more)
            self._patience.daemon = True
            self._patience.start()

    def close(self) -> None:
        if self._patience is not None:
            self._patience.cancel()

    def feed(self, store: Store) -> Feed:
        return Feed(self, store)

    def told(self, record: Record, status: PodStatus) -> None:
        """A pod's status, after each plan."""
        value = pod_value(record, status, self._node)
        with self._lock:
            before = self._pods.get(record.uid)
            self._pods[record.uid] = ("Pod", *record.key), value
            if self._awaited:
                self._heard_of(record.uid)
            elif before is None or before[1] != value:
                for store in self._stores:
                    store.put(SOURCE, Told(value, SOURCE))

    def ended(self, record: Record) -> None:
        """Nothing is left of it."""
        with self._lock:
            gone = self._pods.pop(record.uid, None)
            if self._awaited:
                self._heard_of(record.uid)
            elif gone is not None:
                for store in self._stores:
                    store.remove(SOURCE, gone[0])

    def add(self, store: Store) -> None:
        with self._lock:
            self._stores.append(store)
            if not self._awaited:
                self._replace(store)

    def _wait_no_more(self) -> None:
        """For a pod that nothing can be told of: the others' changes count."""
        with self._lock:
            for uid in list(self._awaited):
                self._heard_of(uid)

    def _heard_of(self, uid: str) -> None:
        self._awaited.discard(uid)
        for store in self._stores if not self._awaited else ():
            self._replace(store)

    def _replace(self, store: Store) -> None:
        store.replace(SOURCE, {key: Told(value, SOURCE) for key, value in self._pods.values()})

    def drop(self, store: Store) -> None:
        with self._lock:
            self._stores.remove(store)


class Feed:
    """A source of a store, as those of kube/feed."""

    error: str | None = None

    def __init__(self, pods: Pods, store: Store) -> None:
        self._pods, self._store = pods, store
        self._started = False
        store.expect(SOURCE)

    def start(self) -> None:
        self._pods.add(self._store)
        self._started = True

    def stop(self) -> None:
        if self._started:
            self._pods.drop(self._store)


def pod_value(record: Record, status: PodStatus, node: str) -> dict[str, Any]:
    """Of a Pod what Services and the DNS look at, and nothing that changes more often. Pure."""
    spec = record.pod.spec
    assert spec is not None
    namespace, name = record.key
    meta: dict[str, Any] = {"name": name, "namespace": namespace, "uid": record.uid}
    if record.pod.metadata is not None and record.pod.metadata.labels:
        meta["labels"] = dict(record.pod.metadata.labels)
    if record.deleted is not None:
        meta["deletionTimestamp"] = "now"
    wanted = {"containers": spec.containers, "initContainers": spec.initContainers or []}
    made: dict[str, Any] = {"nodeName": node}
    for field, containers in wanted.items():
        made[field] = [
            {"ports": msgspec.to_builtins(c.ports), "restartPolicy": c.restartPolicy} for c in containers if c.ports
        ]
    for field in ("hostname", "subdomain", "hostNetwork", "dnsPolicy"):
        if value := getattr(spec, field):
            made[field] = value
    if spec.dnsConfig is not None and spec.dnsConfig.searches:
        made["dnsConfig"] = {"searches": list(spec.dnsConfig.searches)}
    told = {
        "phase": status.phase,
        "podIP": status.podIP,
        "podIPs": msgspec.to_builtins(status.podIPs or []),
        "conditions": [{"type": c.type, "status": c.status} for c in status.conditions or () if c.type == "Ready"],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": made, "status": told}
