"""PURE but for what is read of the machine: this node as the API server's Node object.

Sources: kubernetes pkg/kubelet/nodestatus/setters.go, kubelet_node_status.go (initialNode); reasons and messages of
conditions are a kubelet's.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Any

from ... import __version__
from ..plan.status import rfc3339

API = "v1.37.0"  # whose objects and behaviour these are
MOST_IMAGES, MOST_NAMES = 50, 5  # nodeStatusMaxImages, the largest first; names of each
# What a scheduler asks a node for before it sends a pod that has it (KEP-5328), sorted.
DECLARED = ("RestartAllContainersOnContainerExits", "VolumeBindMountOptions")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# type → (reason and message while all is well, reason and message otherwise)
PRESSURES = {
    "MemoryPressure": (
        ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
    ),
    "DiskPressure": (
        ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("KubeletHasDiskPressure", "kubelet has disk pressure"),
    ),
    "PIDPressure": (
        ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
    ),
}


@dataclass(frozen=True, slots=True)
class Machine:
    """cpu in thousandths; memory, disk in bytes. pressures: the types of those that there are. unready: why the
    runtime can't run pods; empty: it can. images: those that are here, (digests and tags, bytes)."""

    name: str
    addresses: tuple[str, ...]
    port: int
    cpu: int
    memory: int
    disk: int
    pods: int
    info: dict[str, str]
    pressures: frozenset[str] = frozenset()
    unready: str = ""
    images: tuple[tuple[tuple[str, ...], int], ...] = ()


def node_labels(name: str, architecture: str) -> dict[str, str]:
    return {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": architecture,
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": architecture,
    }


def node_object(machine: Machine, labels: dict[str, str], now: float) -> dict[str, Any]:
    """To be created. labels: besides those that every node has."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": machine.name,
            "labels": {**node_labels(machine.name, machine.info["architecture"]), **labels},
        },
        "spec": {},
        "status": node_status(machine, {}, now),
    }


def node_status(machine: Machine, since: dict[str, tuple[str, str]], now: float) -> dict[str, Any]:
    """since: condition's type → (status, RFC 3339), as the last one had them; those that are as they were stay."""
    resources = {
        "cpu": f"{machine.cpu}m" if machine.cpu % 1000 else str(machine.cpu // 1000),
        "memory": f"{machine.memory >> 10}Ki",
        "ephemeral-storage": f"{machine.disk >> 10}Ki",
        "hugepages-2Mi": "0",
        "hugepages-1Gi": "0",
        "pods": str(machine.pods),
    }
    return {
        "capacity": resources,
        "allocatable": resources,
        "addresses": [
            *({"type": "InternalIP", "address": address} for address in machine.addresses),
            {"type": "Hostname", "address": machine.name},
        ],
        "conditions": [_dated(one, since, now) for one in _conditions(machine)],
        "nodeInfo": machine.info,
        "images": [
            {"names": list(names[:MOST_NAMES]), "sizeBytes": size}
            for names, size in sorted(machine.images, key=lambda image: (-image[1], image[0]))[:MOST_IMAGES]
        ],
        "features": {"supplementalGroupsPolicy": True},
        "runtimeHandlers": [{"name": "", "features": {"recursiveReadOnlyMounts": True, "userNamespaces": True}}],
        "declaredFeatures": list(DECLARED),
        **({"daemonEndpoints": {"kubeletEndpoint": {"Port": machine.port}}} if machine.port else {}),
    }


def _conditions(machine: Machine) -> list[dict[str, Any]]:
    found = []
    for type, (good, bad) in PRESSURES.items():
        there = type in machine.pressures
        reason, message = bad if there else good
        found.append({"type": type, "status": str(there), "reason": reason, "message": message})
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "pyrun is ready"}
    if machine.unready:
        ready |= {"status": "False", "reason": "KubeletNotReady", "message": machine.unready}
    return [*found, ready]


def _dated(condition: dict[str, Any], since: dict[str, tuple[str, str]], now: float) -> dict[str, Any]:
    status, when = since.get(condition["type"], ("", ""))
    told = rfc3339(now)
    kept = when if status == condition["status"] else told
    return {**condition, "lastHeartbeatTime": told, "lastTransitionTime": kept}


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """But for the times."""
    return _timeless(a) == _timeless(b)


def _timeless(status: dict[str, Any]) -> dict[str, Any]:
    conditions = [{k: v for k, v in c.items() if not k.endswith("Time")} for c in status["conditions"]]
    return {**status, "conditions": conditions}


# --- the machine ---


def node_info() -> dict[str, str]:
    """What does not change while it runs."""
    machine = platform.machine()
    return {
        "machineID": _word("/etc/machine-id"),
        "systemUUID": _word("/sys/class/dmi/id/product_uuid"),
        "bootID": _word("/proc/sys/kernel/random/boot_id"),
        "kernelVersion": platform.release(),
        "osImage": _release(),
        "containerRuntimeVersion": f"pyrun://{__version__}",
        "kubeletVersion": f"{API}+pyrun-{__version__}",
        "kubeProxyVersion": "",
        "operatingSystem": "linux",
        "architecture": ARCHITECTURES.get(machine, machine),
    }


def _release() -> str:
    for line in _word("/etc/os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return "Linux"


def _word(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
