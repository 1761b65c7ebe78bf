"""Services, endpoints, pods and namespaces out of a directory of YAML or JSON. Reads files, changes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import PyrunError, reason
from ..kube.manifest import scan
from .objects import Fault, Origin, Pod, Service, Slice, read_pod, read_service, read_slice

ENDINGS = (".yaml", ".yml", ".json")


@dataclass(slots=True)
class Objects:
    """What was read. faults: parts of objects that are left out. broken: files or documents that are, each a line."""

    services: list[Service] = field(default_factory=list)
    slices: list[Slice] = field(default_factory=list)
    pods: list[Pod] = field(default_factory=list)
    namespaces: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

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


def read_directory(path: str) -> Objects:
    """All objects in the directory's files, by their names' order. PyrunError when it is no directory."""
    try:
        names = sorted(name for name in os.listdir(path) if name.endswith(ENDINGS) and not name.startswith("."))
    except OSError as error:
        raise PyrunError(f"read {path}: {reason(error)}")
    found = Objects()
    for name in names:
        _read_file(os.path.join(path, name), found)
    return found


def _read_file(path: str, found: Objects) -> None:
    try:
        documents, faults = scan(path)
    except PyrunError as error:
        found.broken.append(error.text)
        return
    found.broken += [fault.text for fault in faults]
    for document in documents:
        try:
            origin = Origin(path, called(document.value), document.line)
            found.add(document.value, origin)
        except (AttributeError, KeyError, TypeError, IndexError, ValueError):
            found.broken.append(f"{document.place()}: this is not the shape of such an object")


def called(value: Mapping[str, Any]) -> str:
    """KIND NAMESPACE/NAME."""
    meta = value["metadata"]
    return f"{value['kind']} {meta.get('namespace') or 'default'}/{meta['name']}"


def all_faults(found: Objects, refused: Iterable[Fault]) -> list[str]:
    """A line for each thing that is not served."""
    return found.broken + [f"{fault.origin}: {fault.why}" for fault in (*found.faults, *refused)]
