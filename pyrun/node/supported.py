"""PURE: what a valid pod may ask for and this node does not have (yet), refused by name. Nothing is left out unsaid.

A row is a pointer, in which * stands for one part, and why; a field that is not there, or has the value that it has
anyway (`HARMLESS`), is no matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from ..kube.objects.apps import Deployment
from ..kube.objects.base import Object
from ..kube.objects.pods import Pod
from ..kube.strict import Fault, escaped
from ..kube.validate.apps import TEMPLATE, pod_of
from ..kube.validate.volumes import SOURCES

VOLUMES = ("emptyDir", "hostPath", "configMap", "secret", "downwardAPI", "projected", "image")
ALIKE = ("containers", "initContainers")
SCHEDULED = "who puts a pod in a directory has chosen the node"
HINTS = {
    "gitRepo": "it was taken out of Kubernetes (CVE-2024-10220, CVE-2025-1767); clone in an init container",
    "persistentVolumeClaim": "there is no API server to bind claims; hostPath is what this node has",
    "nfs": "mount it on the node, and take hostPath",
}
POD = {
    "ephemeralContainers": "they are for pods that run, and come by an API server",
    "serviceAccountName": "there is no API server to give out tokens",
    "serviceAccount": "there is no API server to give out tokens",
    "automountServiceAccountToken": "there is no API server to give out tokens",
    "readinessGates": "there is no API server by which somebody could set them",
    "schedulingGates": SCHEDULED,
    "schedulingGroup": SCHEDULED,
    "nodeSelector": SCHEDULED,
    "affinity": SCHEDULED,
    "topologySpreadConstraints": SCHEDULED,
    "priorityClassName": "there are no PriorityClasses here",
    "preemptionPolicy": SCHEDULED,
    "runtimeClassName": "there are no RuntimeClasses here",
    "overhead": "it comes of a RuntimeClass, and there are none here",
    "resourceClaims": "dynamic resources are not in this node",
    "evictionResponders": "nobody is asked here before a pod is evicted",
    "securityContext/seLinuxChangePolicy": "SELinux is not in this node",
    "securityContext/windowsOptions": "this node runs Linux",
    "volumes/*/projected/defaultUser": "not in this node yet",
    "volumes/*/projected/sources/*/configMap/items/*/user": "not in this node yet",
    "volumes/*/projected/sources/*/secret/items/*/user": "not in this node yet",
    "volumes/*/projected/sources/*/downwardAPI/items/*/user": "not in this node yet",
    "volumes/*/projected/sources/*/serviceAccountToken": "there is no API server to give out tokens",
    **{
        f"volumes/*/projected/sources/*/{one}/user": "not in this node yet"
        for one in ("serviceAccountToken", "clusterTrustBundle", "podCertificate")
    },
    "volumes/*/projected/sources/*/clusterTrustBundle": "there is no API server to give out bundles",
    "volumes/*/projected/sources/*/podCertificate": "there is no API server to sign certificates",
    "volumes/*/downwardAPI/defaultUser": "not in this node yet",
    "volumes/*/downwardAPI/items/*/user": "not in this node yet",
    "volumes/*/configMap/defaultUser": "not in this node yet",
    "volumes/*/configMap/items/*/user": "not in this node yet",
    "volumes/*/secret/defaultUser": "not in this node yet",
    "volumes/*/secret/items/*/user": "not in this node yet",
}
CONTAINER = {
    "volumeDevices": "there are no block volumes here",
    "resources/claims": "dynamic resources are not in this node",
    "resources/limits/ephemeral-storage": "disk limits are not in this node yet",
    "resources/requests/ephemeral-storage": "disk limits are not in this node yet",
    "lifecycle/*/tcpSocket": "a deprecated hook that does nothing; take httpGet or exec",
    "securityContext/windowsOptions": "this node runs Linux",
    **{f"{where}/httpGet/protocol": "probes and hooks speak HTTP/1.1 here"
       for where in (*(f"{kind}Probe" for kind in ("liveness", "readiness", "startup")), "lifecycle/*")},
}  # fmt: skip
# What an API server and the controllers behind it do for a pod that comes from there.
SERVED = (
    "ephemeralContainers", "serviceAccountName", "serviceAccount", "automountServiceAccountToken", "readinessGates",
    "schedulingGates", "schedulingGroup", "nodeSelector", "affinity", "topologySpreadConstraints", "priorityClassName",
    "preemptionPolicy", "volumes/*/projected/sources/*/serviceAccountToken",
    "volumes/*/projected/sources/*/clusterTrustBundle", "volumes/*/projected/sources/*/podCertificate",
)  # fmt: skip
# By which profiles were asked for once; left out, a pod would run without them unsaid.
ANNOTATIONS = {
    "container.apparmor.security.beta.kubernetes.io/": "securityContext.appArmorProfile",
    "container.seccomp.security.alpha.kubernetes.io/": "securityContext.seccompProfile",
    "seccomp.security.alpha.kubernetes.io/": "securityContext.seccompProfile",
}
# What a field may have without asking for anything.
HARMLESS: dict[str, tuple[Any, ...]] = {
    "automountServiceAccountToken": (False,),
    "serviceAccountName": ("default",),
    "serviceAccount": ("default",),
}
ROWS = {
    **{f"/spec/{at}": why for at, why in POD.items()},
    **{f"/spec/{field}/*/{at}": why for field in ALIKE for at, why in CONTAINER.items()},
}


def unsupported(found: Object, node: str = "", *, served: bool = False) -> Iterator[Fault]:
    """After validation. node: this node's name, against spec.nodeName. served: it comes from an API server."""
    if isinstance(found, Deployment):
        yield from _of_deployment(found, node)
    if not isinstance(found, Pod) or found.spec is None:
        return
    value = msgspec.to_builtins(found)
    for row, why in ROWS.items():
        if served and row.removeprefix("/spec/") in SERVED:
            continue
        for pointer, there in _at(value, row.split("/")[1:], ""):
            name = row.rpartition("/")[2]
            if there in (None, [], {}) or there in HARMLESS.get(name, ()):
                continue
            yield Fault(pointer, f"is not supported: {why}")
    for i, volume in enumerate(found.spec.volumes or ()):
        empty = volume.emptyDir
        if empty is not None and empty.medium not in (None, "", "Memory"):
            yield Fault(f"/spec/volumes/{i}/emptyDir/medium", "is not supported: huge pages are not in this node yet")
        for kind in SOURCES:
            if kind not in VOLUMES and getattr(volume, kind) is not None:
                why = HINTS.get(kind, f"volumes here are {', '.join(VOLUMES)}")
                yield Fault(f"/spec/volumes/{i}/{kind}", f"is not supported: {why}")
    yield from _values(found, node, served)
    for name in () if served else (found.metadata and found.metadata.annotations) or ():
        for prefix, field in ANNOTATIONS.items():
            if name.startswith(prefix):
                yield Fault(f"/metadata/annotations/{escaped(name)}", f"is not supported: take {field}")


def _of_deployment(found: Deployment, node: str) -> Iterator[Fault]:
    spec = found.spec
    if spec.paused:
        yield Fault("/spec/paused", "is not supported: change the file when it is to be rolled out")
    if spec.revisionHistoryLimit is not None:
        yield Fault("/spec/revisionHistoryLimit", "is not supported: this node keeps no history but the file's own")
    for fault in unsupported(pod_of(found), node):
        yield Fault(f"{TEMPLATE}{fault.pointer}", fault.text)


def _at(value: Any, parts: list[str], at: str) -> Iterator[tuple[str, Any]]:
    """What a row's pointer means in the value."""
    if not parts:
        yield at, value
        return
    part, *rest = parts
    if isinstance(value, list):
        for i, one in enumerate(value):
            yield from _at(one, rest, f"{at}/{i}")
    elif isinstance(value, dict):
        for key in value if part == "*" else (part,):
            if key in value:
                yield from _at(value[key], rest, f"{at}/{escaped(key)}")


def _values(pod: Pod, node: str, served: bool) -> Iterator[Fault]:
    """Values of fields that are supported otherwise."""
    assert pod.spec is not None
    spec = pod.spec
    if spec.nodeName and node and spec.nodeName != node:
        yield Fault("/spec/nodeName", f"is not supported: this node is {node}")
    if spec.os is not None and spec.os.name != "linux":
        yield Fault("/spec/os/name", "is not supported: this node runs Linux")
    if spec.schedulerName not in (None, "default-scheduler") and not served:
        yield Fault("/spec/schedulerName", f"is not supported: {SCHEDULED}")
    own = spec.resources
    for name in sorted({*((own and own.limits) or {}), *((own and own.requests) or {})} - {"cpu", "memory"}):
        yield Fault(f"/spec/resources/limits/{escaped(name)}", "is not supported: huge pages are not in this node yet")
    for field in ALIKE:
        for i, c in enumerate(getattr(spec, field) or ()):
            at = f"/spec/{field}/{i}"
            for name in {
                **((c.resources and c.resources.limits) or {}),
                **((c.resources and c.resources.requests) or {}),
            }:
                if name not in ("cpu", "memory", "ephemeral-storage"):
                    pointer = f"{at}/resources/limits/{escaped(name)}"
                    yield Fault(pointer, "is not supported: devices and huge pages are not in this node yet")
