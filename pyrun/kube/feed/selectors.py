"""Keeps the slices of Services with selectors in the store, as its Services and pods change.

A Service that has a slice from elsewhere (a file, an API server's controller) is left to that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from .slices import MANAGED_BY, OURS, SERVICE_NAME, ZONE, plan_slices, selector_of, selects
from .store import Held, Key, Store, Told, key_of

SOURCE = "selectors"
KINDS = frozenset({"Service", "EndpointSlice", "Pod", "Node"})


class Selectors:
    """node: of this name is the node whose zone the endpoints have."""

    def __init__(self, store: Store, node: str = "") -> None:
        self._store = store
        self._node = node
        self._made: dict[Key, list[Key]] = {}  # of each Service, the keys of its slices
        self._pods: dict[Key, Any] = {}
        self._services: dict[Key, Any] = {}
        self._others: dict[Key, Key] = {}  # slices that are not ours, and their Services
        self._cared_for: Counter[Key] = Counter()  # Services, by how many slices that are not ours they have
        self._zone = ""

    def update(self, changes: dict[Key, Held | None]) -> bool:
        """Takes what Store.changes() told; True where slices changed, which the store tells next."""
        wanted: set[Key] = set()
        for key, held in changes.items():
            wanted |= self._take(key, None if held is None else held.value)
        changed = [self._make(key) for key in sorted(wanted)]
        return any(changed)

    def _take(self, key: Key, value: Any) -> set[Key]:
        """The Services that it concerns."""
        kind, namespace, name = key
        if kind == "Service":
            _set(self._services, key, value)
            return {key}
        if kind == "Pod":
            old = self._pods.get(key)
            _set(self._pods, key, value)
            return self._chosen_by(namespace, [one for one in (old, value) if one is not None])
        if kind == "EndpointSlice":
            return self._take_slice(key, value)
        if kind == "Node" and name == self._node:
            labels = ((value or {}).get("metadata") or {}).get("labels") or {}
            if labels.get(ZONE, "") != self._zone:
                self._zone = labels.get(ZONE, "")
                return set(self._services)
        return set()

    def _take_slice(self, key: Key, value: Any) -> set[Key]:
        labels = ((value or {}).get("metadata") or {}).get("labels") or {}
        before = self._others.pop(key, None)
        now = None
        if labels.get(MANAGED_BY) != OURS and isinstance(labels.get(SERVICE_NAME), str):
            now = self._others[key] = ("Service", key[1], labels[SERVICE_NAME])
            self._cared_for[now] += 1
        if before is not None:
            self._cared_for[before] -= 1
            if not self._cared_for[before]:
                del self._cared_for[before]
        return {one for one in (before, now) if one is not None}

    def _chosen_by(self, namespace: str, pods: Iterable[Any]) -> set[Key]:
        found = set()
        for key, service in self._services.items():
            selector = selector_of(service) if key[1] == namespace else None
            if selector is not None and any(selects(selector, pod) for pod in pods):
                found.add(key)
        return found

    def _make(self, key: Key) -> bool:
        service = self._services.get(key)
        slices: list[Any] = []
        if service is not None and key not in self._cared_for:
            pods = [pod for (_, namespace, _), pod in self._pods.items() if namespace == key[1]]
            slices = plan_slices(service, pods, self._zone)
        changed = False
        keys = []
        for one in slices:
            keys.append(key_of(one))
            old = self._store.get(keys[-1])
            if old is None or old.value != one:
                self._store.put(SOURCE, Told(one, SOURCE))
                changed = True
        for gone in set(self._made.get(key, ())) - set(keys):
            self._store.remove(SOURCE, gone)
            changed = True
        _set(self._made, key, keys or None)
        return changed


def _set(of: dict[Key, Any], key: Key, value: Any) -> None:
    if value is None:
        of.pop(key, None)
    else:
        of[key] = value
