"""Pods, each a valid one with something changed, and where they are wrong: for our rules (tests/unit) and, as a dry
run, for a real API server (tests/cluster).

A row's fault is the JSON pointer of what is wrong, "" for none. `ours`: where we are stricter than an API server on
purpose; `gate`: a feature gate of 1.37 that is off by itself, and that an API server needs for it.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

BASE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {"containers": [{"name": "web", "image": "registry.example/web:1"}]},
}


class Row(NamedTuple):
    name: str
    spec: dict[str, Any]
    container: dict[str, Any]
    metadata: dict[str, Any]
    fault: str
    ours: bool
    gate: str

    def pod(self) -> dict[str, Any]:
        made = copy.deepcopy(BASE)
        made["spec"].update(copy.deepcopy(self.spec))
        made["spec"]["containers"][0].update(copy.deepcopy(self.container))
        made["metadata"].update(self.metadata)
        return made


ROWS: list[Row] = []


def row(
    name: str,
    fault: str = "",
    *,
    spec: dict[str, Any] | None = None,
    metadata: dict[str, Any] | None = None,
    ours: bool = False,
    gate: str = "",
    **container: Any,
) -> None:
    """Keywords are fields of the first container."""
    ROWS.append(Row(name, spec or {}, container, metadata or {}, fault, ours, gate))


C = "/spec/containers/0"
SIGNAL, LINUX = "ContainerStopSignals", {"os": {"name": "linux"}}
HTTP = {"httpGet": {"port": 80}}
EXEC = {"exec": {"command": ["true"]}}


def init(**fields: Any) -> dict[str, Any]:
    return {"initContainers": [{"name": "i", "image": "i:1", **fields}]}


def volume(**source: Any) -> dict[str, Any]:
    return {"volumes": [{"name": "v", **source}]}


def of_account(spec: dict[str, Any]) -> dict[str, Any]:
    return {"serviceAccountName": "a", **spec}


def mounted(**mount: Any) -> list[dict[str, Any]]:
    return [{"name": "v", "mountPath": "/v", **mount}]
