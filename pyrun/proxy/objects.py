"""What a heap of manifests says of Services, by kind: the rest of it is not for the proxy, and is let be."""

from __future__ import annotations

from .model import Fault, Objects
from .readers import read_node, read_service, read_slice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..kube.manifest import Document

SERVICE, SLICE, NODE = ("v1", "Service"), ("discovery.k8s.io/v1", "EndpointSlice"), ("v1", "Node")
# What somebody may take for one of these; it would be served by nobody, without a word.
_OTHERS = {
    "Service": "apiVersion must be v1",
    "EndpointSlice": "apiVersion must be discovery.k8s.io/v1",
    "Endpoints": "Endpoints are not read: write an EndpointSlice (discovery.k8s.io/v1)",
}


def read_objects(documents: Iterable[Document]) -> Objects:
    """Services, slices and nodes of these documents. Of two with one name the first is kept, the other is a fault."""
    found = Objects()
    for document in documents:
        take(found, document.value, document.place())
    return found


def take(found: Objects, value: dict[str, object], origin: str) -> None:
    """Adds one object, or what is wrong with it."""
    kind = (value.get("apiVersion"), value.get("kind"))
    if kind == SERVICE:
        _add(found.services, read_service(value, origin, found.faults), "Service", origin, found.faults)
    elif kind == SLICE:
        _add(found.slices, read_slice(value, origin, found.faults), "EndpointSlice", origin, found.faults)
    elif kind == NODE:
        node = read_node(value, origin, found.faults)
        if node is not None:
            found.nodes.setdefault(node.name, node)
    elif not isinstance(kind[1], str) or not kind[1]:
        found.faults.append(Fault(origin, "/kind", "says not what it is"))
    elif kind[1] in _OTHERS:
        found.faults.append(Fault(origin, "/kind" if kind[1] == "Endpoints" else "/apiVersion", _OTHERS[kind[1]]))


def _add(into: dict, item: object, kind: str, origin: str, faults: list[Fault]) -> None:  # type: ignore[type-arg]
    if item is None:
        return
    first = into.setdefault(item.id, item)  # type: ignore[attr-defined]
    if first is not item:
        faults.append(
            Fault(origin, "/metadata/name", f"a second {kind} {'/'.join(first.id)}; the first is in {first.origin}")
        )
