"""PURE: what a pod's volumes come to: which are directories, which have files, what of the host is looked at.

Ours lie below one mount of the pod's own (plan/volumes.py); a hostPath stays where it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...kube.objects.pods import Pod
from ...kube.objects.volumes import Volume
from ...kube.quantity import whole
from ...kube.validate.volumes import FILLED, kind_of
from ..qos import pod_limits
from .contents import Objects, Payload, payload_of
from .errors import VolumeError

WHOLE_MODE = 0o777
MEMORY = "Memory"


@dataclass(frozen=True, slots=True)
class Directory:
    """An emptyDir. size: bytes of memory, None: on disk; 0: as much as a tmpfs has by itself."""

    name: str
    mode: int
    size: int | None
    group: int | None


@dataclass(frozen=True, slots=True)
class Filled:
    """Files that follow objects; for containers read-only."""

    name: str
    payload: Payload
    group: int | None


@dataclass(frozen=True, slots=True)
class HostPath:
    name: str
    path: str
    type: str


Planned = Directory | Filled | HostPath


def plan_volumes(pod: Pod, uid: str, objects: Objects) -> list[Planned]:
    """VolumeError names the first volume that can't be had, be it for an object that is missing."""
    assert pod.spec is not None
    group = pod.spec.securityContext.fsGroup if pod.spec.securityContext else None
    volumes = [volume for volume in pod.spec.volumes or () if volume.image is None]  # that is the runtime's to mount
    return [_plan(volume, pod, uid, objects, group) for volume in volumes]


def _plan(volume: Volume, pod: Pod, uid: str, objects: Objects, group: int | None) -> Planned:
    if volume.hostPath is not None:
        return HostPath(volume.name, volume.hostPath.path, volume.hostPath.type or "")
    if (empty := volume.emptyDir) is not None:
        size = _memory(volume, pod, objects) if empty.medium == MEMORY else None
        return Directory(volume.name, WHOLE_MODE if empty.mode is None else empty.mode, size, group)
    if kind_of(volume) in FILLED:
        return Filled(volume.name, payload_of(volume, pod, uid, objects), group)
    raise VolumeError(volume.name, f"{kind_of(volume)} is not supported")


def _memory(volume: Volume, pod: Pod, objects: Objects) -> int:
    """The least of its own limit, the pod's, and what the node has."""
    assert pod.spec is not None and volume.emptyDir is not None
    own = whole(volume.emptyDir.sizeLimit) if volume.emptyDir.sizeLimit is not None else 0
    bounds = (own, pod_limits(pod.spec).memory or 0, objects.allocatable.get("memory", 0))
    return min((n for n in bounds if n > 0), default=0)


def wanted(pod: Pod) -> set[tuple[str, str]]:
    """(ConfigMap or Secret, name): the objects whose changes reach the pod's volumes."""
    found: set[tuple[str, str]] = set()
    for volume in (pod.spec and pod.spec.volumes) or ():
        if volume.configMap is not None:
            found.add(("ConfigMap", volume.configMap.name or ""))
        if volume.secret is not None:
            found.add(("Secret", volume.secret.secretName or ""))
        for one in (volume.projected and volume.projected.sources) or ():
            if one.configMap is not None:
                found.add(("ConfigMap", one.configMap.name or ""))
            if one.secret is not None:
                found.add(("Secret", one.secret.name or ""))
    return found
