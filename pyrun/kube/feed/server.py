"""Objects of an API server, followed: a watch for each kind, into a store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..client import Client, Object, path
from ..watch import Watch
from .store import Held, Key, Packed, Store, Told, key_of

# What says that somebody else looks after it is not even sent (kube-proxy asks so, too).
NOT_OURS = "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name"


class Kind(NamedTuple):
    """version: GROUP/VERSION, or v1. where: query of label and field selectors."""

    kind: str
    version: str
    plural: str
    namespace: str | None = None
    where: tuple[tuple[str, str], ...] = ()


def services(selector: str = "") -> Kind:
    return Kind("Service", "v1", "services", None, (("labelSelector", selector),) if selector else ())


def slices(selector: str = "") -> Kind:
    query = (("labelSelector", selector),) if selector else ()
    return Kind("EndpointSlice", "discovery.k8s.io/v1", "endpointslices", None, query)


def node(name: str) -> Kind:
    """The one node of this name."""
    return Kind("Node", "v1", "nodes", None, (("fieldSelector", f"metadata.name={name}"),))


def pods(node_name: str = "") -> Kind:
    """All pods, or those of a node."""
    return Kind("Pod", "v1", "pods", None, (("fieldSelector", f"spec.nodeName={node_name}"),) if node_name else ())


def slim(one: Object, kind: str, version: str, source: str, *, packed: bool) -> Held:
    """The object as it is kept: an item of a list says neither its kind nor its version."""
    one["kind"], one["apiVersion"] = kind, version
    one["metadata"].pop("managedFields", None)
    return Packed(one, source) if packed else Told(one, source)


class Server:
    """Each kind is a source of its own in the store, by its plural. told: a line for the log. packed: nobody looks at
    an object but when it changes, so that it is kept small."""

    def __init__(
        self,
        client: Client,
        store: Store,
        kinds: Sequence[Kind],
        told: Callable[[str], None] = lambda line: None,
        *,
        packed: bool = False,
    ) -> None:
        self._packed = packed
        self.watches = [self._watch(client, store, kind, told) for kind in kinds]

    def _watch(self, client: Client, store: Store, kind: Kind, told: Callable[[str], None]) -> Watch:
        source = f"{client.cluster.server} {kind.plural}"
        store.expect(source)

        def slimmed(one: Object) -> Held:
            return slim(one, kind.kind, kind.version, source, packed=self._packed)

        def replaced(found: list[Any]) -> None:
            objects: dict[Key, Any] = {key_of(one.value): one for one in found}
            store.replace(source, objects)

        def changed(event: str, one: Held) -> None:
            if event == "DELETED":
                store.remove(source, key_of(one.value))
            else:
                store.put(source, one)

        where = path(kind.version, kind.plural, kind.namespace)
        return Watch(client, where, replaced, changed, slim=slimmed, told=told, **dict(kind.where))

    def start(self) -> None:
        for watch in self.watches:
            watch.start()

    def stop(self) -> None:
        for watch in self.watches:
            watch.stop()

    def error(self) -> str | None:
        """Why one of them does not go on now."""
        return next((watch.error for watch in self.watches if watch.error), None)
