"""PURE: what a fieldRef and a resourceFieldRef show of a pod, to its variables and its files.

Sources: kubernetes pkg/fieldpath/fieldpath.go, pkg/api/v1/resource/helpers.go (ExtractContainerResourceValue).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..kube.objects.containers import Container
from ..kube.objects.pods import Pod
from ..kube.objects.volumes import ResourceFieldSelector
from ..kube.quantity import milli, parse, whole
from ..kube.resources import limits, requests
from ..kube.validate.fields import keyed

_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What of a pod only the node knows; addresses in the order of the pod's families."""

    node_name: str = ""
    service_account: str = "default"
    host_ips: tuple[str, ...] = ()
    pod_ips: tuple[str, ...] = ()


def field_value(pod: Pod, uid: str, path: str, facts: PodFacts) -> str:
    """A label or annotation that is not there is empty. ValueError for a path that is none."""
    meta = pod.metadata
    assert meta is not None
    found = keyed(path)
    if found is not None:
        which, key = found
        return str((getattr(meta, which) or {}).get(key, ""))
    match path:
        case "metadata.name":
            return meta.name or ""
        case "metadata.namespace":
            return meta.namespace or ""
        case "metadata.uid":
            return uid
        case "metadata.labels" | "metadata.annotations":
            return format_map(getattr(meta, path.partition(".")[2]) or {})
        case "spec.nodeName":
            return facts.node_name
        case "spec.serviceAccountName":
            return facts.service_account
        case "status.hostIP" | "status.hostIPs":
            return _addresses(facts.host_ips, path)
        case "status.podIP" | "status.podIPs":
            return _addresses(facts.pod_ips, path)
    raise ValueError(f"{path!r} is no field that can be shown")


def _addresses(found: tuple[str, ...], path: str) -> str:
    return ",".join(found) if path.endswith("s") else (found[0] if found else "")


def format_map(found: Mapping[str, str]) -> str:
    """As a file has labels: KEY="VALUE", a line each, sorted; the value as Go's %q has it."""
    return "\n".join(f"{key}={quoted(found[key])}" for key in sorted(found))


def quoted(text: str) -> str:
    """strconv.Quote."""
    return '"' + "".join(_escaped(c) for c in text) + '"'


def _escaped(c: str) -> str:
    if c in '"\\':
        return "\\" + c
    if c.isprintable():
        return c
    code = ord(c)
    plain = f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return _ESCAPES.get(c, plain)


def resource_value(ref: ResourceFieldSelector, container: Container, allocatable: Mapping[str, int]) -> str:
    """In units of the divisor, rounded up. A limit that is not there, or 0, is what the node has; a request nothing.

    allocatable: cpu in thousandths, all else as it is. ValueError for a resource that is none."""
    which, _, name = ref.resource.partition(".")
    if which not in ("limits", "requests"):
        raise ValueError(f"{ref.resource!r} is no resource of a container")
    amount = (limits(container) if which == "limits" else requests(container)).get(name, 0)
    if not amount and which == "limits":
        amount = allocatable.get(name, 0)
    divisor = ref.divisor if ref.divisor and parse(ref.divisor) else 1
    unit = milli(divisor) if name == "cpu" else whole(divisor)
    return str(-(-amount // unit))
