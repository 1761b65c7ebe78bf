"""From Kubernetes' objects, wherever they were read, to what the plan takes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import PyrunError, reason
from ..kube.feed.slices import plan_slices, selector_of
from ..kube.feed.store import Held, Key, key_of
from ..kube.manifest import scan
from .objects import (
    FAULTS_MOST,
    SERVICE_NAME,
    Fault,
    Faults,
    Origin,
    Pod,
    Service,
    Slice,
    read_pod,
    read_service,
    read_slice,
)

ENDINGS = (".yaml", ".yml", ".json")
SHAPE = (AttributeError, KeyError, TypeError, IndexError, ValueError)  # what comes of a value of another type
KINDS = frozenset({"Service", "EndpointSlice", "Pod", "Namespace"})


@dataclass(slots=True)
class Objects:
    """What was read. faults: parts of objects that are left out. broken: files or objects that are, each a line."""

    services: list[Service] = field(default_factory=list)
    slices: list[Slice] = field(default_factory=list)
    pods: list[Pod] = field(default_factory=list)
    namespaces: list[str] = field(default_factory=list)
    faults: Faults = field(default_factory=Faults)
    broken: list[str] = field(default_factory=list)
    broken_more: int = 0  # beside those

    def break_(self, line: str) -> None:
        if len(self.broken) < FAULTS_MOST:
            self.broken.append(line)
        else:
            self.broken_more += 1

    def add(self, value: Mapping[str, Any], origin: Origin) -> None:
        """Takes one object; those of other kinds are none of ours."""
        match value.get("kind"):
            case "Service":
                self.services.append(read_service(value, origin, self.faults))
            case "EndpointSlice":
                if part := read_slice(value, origin, self.faults):
                    self.slices.append(part)
            case "Pod":
                if pod := read_pod(value, origin, self.faults):
                    self.pods.append(pod)
            case "Namespace":
                self.namespaces.append(value["metadata"]["name"])


def gather(held: Mapping[Key, Held]) -> Objects:
    """What there is, and the slices of Services that have a selector and for which nobody has made slices."""
    found = Objects()
    pods: dict[str, list[Any]] = {}
    sliced = set()
    for (kind, namespace, _), one in held.items():
        if kind == "Pod":
            pods.setdefault(namespace, []).append(one.value)
        elif kind == "EndpointSlice":
            labels = one.value["metadata"].get("labels")
            if isinstance(labels, dict) and isinstance(labels.get(SERVICE_NAME), str):
                sliced.add((namespace, labels[SERVICE_NAME]))
    for key, one in held.items():
        kind, namespace, name = key
        origin = Origin(f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}", _place_of(one))
        try:
            found.add(one.value, origin)
            if kind == "Service" and (namespace, name) not in sliced and selector_of(dict(one.value)):
                made = Origin(f"{origin.object}, by its selector", origin.place)
                for value in _slices(dict(one.value), namespace, pods):
                    found.add(value, made)
        except SHAPE:
            found.break_(f"{origin.at('')}: this is not the shape of such an object")
    return found


def _slices(service: Any, namespace: str, pods: dict[str, list[Any]]) -> list[Any]:
    """pods: by their namespaces; those that are not of a pod's shape, which are told of by themselves, go away where
    they are in the way."""
    try:
        return plan_slices(service, pods.get(namespace, []))
    except SHAPE:
        pods[namespace] = [pod for pod in pods.get(namespace, []) if _is_pod(pod)]
        return plan_slices(service, pods[namespace])


def _is_pod(pod: Any) -> bool:
    """Whether slices can be made of it, for a Service that has it and looks for a port by its name."""
    try:
        labels = pod["metadata"].get("labels") or {"a": "b"}
        spec = {"selector": labels, "ports": [{"port": 1, "targetPort": "x"}]}
        plan_slices({"metadata": {"name": "x"}, "spec": spec}, [pod])
        return isinstance(labels, dict)
    except SHAPE:
        return False


def _place_of(one: Held) -> Any:
    """Only what is in a file has a line."""
    return one.place if hasattr(one, "line") else None


def read_directory(path: str) -> Objects:
    """All objects in the directory's files, by their names' order. PyrunError when it is no directory."""
    try:
        names = sorted(name for name in os.listdir(path) if name.endswith(ENDINGS) and not name.startswith("."))
    except OSError as error:
        raise PyrunError(f"read {path}: {reason(error)}")
    held: dict[Key, Held] = {}
    broken = []
    for name in names:
        try:
            documents, faults = scan(os.path.join(path, name))
        except PyrunError as error:
            broken.append(error.text)
            continue
        broken += [fault.text for fault in faults]
        for document in documents:
            try:
                key = key_of(document.value)
            except ValueError as error:
                broken.append(f"{document.place()}: {error}")
                continue
            if key in held:
                broken.append(f"{document.place()}: it is in {held[key].place()} too")
            elif key[0] in KINDS:
                held[key] = document
    found = gather(held)
    found.broken = broken + found.broken
    return found


def all_faults(found: Objects, refused: Iterable[Fault], more: int = 0) -> list[str]:
    """A line for each thing that is not served; more: how many there are beside `refused`."""
    lines = found.broken + [f"{fault.origin}: {fault.why}" for fault in (*found.faults, *refused)]
    if more := found.broken_more + found.faults.more + more:
        lines.append(f"{more} faults more are not named")
    return lines
