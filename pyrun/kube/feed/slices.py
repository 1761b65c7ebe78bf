"""Which EndpointSlices a Service has by its selector, where no controller makes them: pure, on plain objects.

As Kubernetes' own controller decides it (staging/src/k8s.io/endpointslice): a pod belongs while it has an address and
has not ended; it is ready by its condition Ready, or always where publishNotReadyAddresses says so; one that is being
deleted is terminating. A named targetPort is each pod's own number, so pods may differ, and each set of numbers is a
slice.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

MANAGED_BY, OURS = "endpointslice.kubernetes.io/managed-by", "pyrun.io"
SERVICE_NAME = "kubernetes.io/service-name"
HEADLESS = "service.kubernetes.io/headless"
ZONE = "topology.kubernetes.io/zone"
ENDED = ("Succeeded", "Failed")
Object = Mapping[str, Any]
Ports = tuple[tuple[str, str, int, str], ...]  # name, protocol, number, appProtocol


def selector_of(service: Object) -> dict[str, str] | None:
    """None where none is asked for: then somebody else makes the slices."""
    spec = service.get("spec")
    if not isinstance(spec, Mapping) or spec.get("type") == "ExternalName":
        return None
    selector = spec.get("selector")
    if not isinstance(selector, Mapping) or not selector:
        return None
    return {str(key): str(value) for key, value in selector.items()}


def selects(selector: Mapping[str, str], pod: Object) -> bool:
    labels = pod["metadata"].get("labels") or {}
    return all(labels.get(key) == value for key, value in selector.items())


def plan_slices(service: Object, pods: Iterable[Object], zone: str = "") -> list[dict[str, Any]]:
    """The slices of a Service with a selector. pods: of its namespace. zone: of the node on which they are."""
    selector = selector_of(service)
    if selector is None:
        return []
    found: dict[tuple[int, Ports], list[dict[str, Any]]] = {}
    pods = sorted(pods, key=lambda one: str(one["metadata"]["name"]))
    for pod in pods:
        if not selects(selector, pod) or (pod.get("status") or {}).get("phase") in ENDED:
            continue
        ports = _ports(service, pod)
        for family, address in _addresses(service, pod):
            found.setdefault((family, ports), []).append(_endpoint(service, pod, address, zone))
    counts: dict[int, int] = {}
    made = []
    for (family, ports), endpoints in sorted(found.items(), key=lambda item: item[0]):
        counts[family] = counts.get(family, 0) + 1
        made.append(_slice(service, family, counts[family], ports, endpoints))
    return made


def _addresses(service: Object, pod: Object) -> list[tuple[int, str]]:
    """(4 or 6, address), the first of each family that the Service has."""
    status = pod.get("status") or {}
    texts = [one.get("ip") for one in status.get("podIPs") or ()] or [status.get("podIP")]
    wanted = _families(service)
    found: dict[int, str] = {}
    for text in texts:
        try:
            family = ipaddress.ip_address(str(text)).version
        except ValueError:
            continue
        if not wanted or family in wanted:
            found.setdefault(family, str(text))
    return sorted(found.items())


def _families(service: Object) -> set[int]:
    """Those of ipFamilies or of its addresses; empty: whatever its pods have (a headless one without a word)."""
    spec = service["spec"]
    if spec.get("ipFamilies"):
        return {6 if word == "IPv6" else 4 for word in spec["ipFamilies"]}
    texts = [str(text) for text in spec.get("clusterIPs") or [spec.get("clusterIP") or ""]]
    return {6 if ":" in text else 4 for text in texts if text and text != "None"}


def _ports(service: Object, pod: Object) -> Ports:
    found = []
    for port in service["spec"].get("ports") or ():
        protocol = port.get("protocol") or "TCP"
        target = port.get("targetPort") or port.get("port")
        if isinstance(target, str) and not target.isdigit():
            target = _named(pod, target, protocol)
        if target:
            found.append((port.get("name") or "", protocol, int(target), port.get("appProtocol") or ""))
    return tuple(found)


def _named(pod: Object, name: str, protocol: str) -> int | None:
    """The number of a port of one of the pod's containers."""
    spec = pod.get("spec") or {}
    sidecars = [one for one in spec.get("initContainers") or () if one.get("restartPolicy") == "Always"]
    for container in [*(spec.get("containers") or ()), *sidecars]:
        for port in container.get("ports") or ():
            if port.get("name") == name and (port.get("protocol") or "TCP") == protocol:
                number = port.get("containerPort")
                return number if isinstance(number, int) else None
    return None


def is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def _endpoint(service: Object, pod: Object, address: str, zone: str) -> dict[str, Any]:
    meta, spec = pod["metadata"], pod.get("spec") or {}
    serving, terminating = is_ready(pod), meta.get("deletionTimestamp") is not None
    ready = bool(service["spec"].get("publishNotReadyAddresses")) or (serving and not terminating)
    target = {"kind": "Pod", "namespace": meta.get("namespace") or "default", "name": meta["name"]}
    if meta.get("uid"):
        target["uid"] = meta["uid"]
    made: dict[str, Any] = {
        "addresses": [address],
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "targetRef": target,
    }
    if spec.get("hostname") and spec.get("subdomain") == service["metadata"]["name"]:
        made["hostname"] = spec["hostname"]
    if spec.get("nodeName"):
        made["nodeName"] = spec["nodeName"]
    if zone:
        made["zone"] = zone
    return made


def _slice(service: Object, family: int, number: int, ports: Ports, endpoints: list[dict[str, Any]]) -> dict[str, Any]:
    meta = service["metadata"]
    labels = {SERVICE_NAME: meta["name"], MANAGED_BY: OURS}
    if service["spec"].get("clusterIP") == "None":
        labels[HEADLESS] = ""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{meta['name']}-ipv{family}-{number}",
            "namespace": meta.get("namespace") or "default",
            "labels": labels,
        },
        "addressType": f"IPv{family}",
        "ports": [
            {"name": name, "protocol": protocol, "port": port, **({"appProtocol": app} if app else {})}
            for name, protocol, port, app in ports
        ],
        "endpoints": endpoints,
    }
