"""PURE: what the containers of a pod request together. Source: kubernetes component-helpers/resource/helpers.go."""

from __future__ import annotations

from collections.abc import Mapping

from .objects.base import Quantity
from .objects.containers import Container
from .objects.pods import PodSpec
from .quantity import milli, whole


def counted(found: Mapping[str, Quantity] | None) -> dict[str, int]:
    """cpu in thousandths, all else as it is. ValueError for what is no quantity."""
    return {name: milli(q) if name == "cpu" else whole(q) for name, q in (found or {}).items()}


def requests(c: Container) -> dict[str, int]:
    return counted(c.resources.requests if c.resources else None)


def limits(c: Container) -> dict[str, int]:
    return counted(c.resources.limits if c.resources else None)


def container_requests(spec: PodSpec) -> dict[str, int]:
    """Of all of them: apps and sidecars together, or an init container with the sidecars before it, if that is more
    (KEP-753)."""
    total: dict[str, int] = {}
    sidecars: dict[str, int] = {}
    highest: dict[str, int] = {}
    for c in spec.initContainers or ():
        if c.restartPolicy == "Always":
            sidecars = summed(sidecars, requests(c))
            highest = _most(highest, sidecars)
        else:
            highest = _most(highest, summed(sidecars, requests(c)))
    for c in spec.containers:
        total = summed(total, requests(c))
    return _most(summed(total, sidecars), highest)


def summed(a: dict[str, int], b: dict[str, int]) -> dict[str, int]:
    return {name: a.get(name, 0) + b.get(name, 0) for name in a.keys() | b.keys()}


def _most(a: dict[str, int], b: dict[str, int]) -> dict[str, int]:
    return {name: max(a.get(name, 0), b.get(name, 0)) for name in a.keys() | b.keys()}
