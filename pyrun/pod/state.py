"""The daemon's parts that pods and containers need, and all pods and containers that there are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from ..errors import NotFound, PyrunError
from ..facts import Facts
from .handler import Features, Handler, Own, Peer, handler_root
from .joined import Joined
from .network import Network
from .pod import Container, Pod
from .spec import Settings


class NodeState:
    """root, state: directories, absolute. images: where containers' roots come from. peers: the runtime handlers beside
    pyrun itself, by name. changed: called with a container
    or pod and what became of it ("created", "started", "stopped", "deleted")."""

    def __init__(
        self,
        root: str,
        state: str,
        images: Any,
        network: Network,
        facts: Facts,
        settings: Settings,
        warn: Callable[[str], None],
        peers: dict[str, Peer] | None = None,
    ) -> None:
        self.root, self.state = root, state
        self.images, self.network, self.facts, self.settings, self.warn = images, network, facts, settings, warn
        self.own = Own(f"{state}/containers", facts, warn)
        self.peers = peers or {}
        self.pods: dict[str, Pod] = {}
        self._by_uid: dict[str, dict[str, Pod]] = {}
        self.containers: dict[str, Container] = {}
        self.joined = Joined()
        self._going_on: set[asyncio.Task[None]] = set()
        self.unreleased: set[str] = set()  # owners of holds of images, which are gone
        self.changed: Callable[[Pod | Container, str], None] = lambda what, how: None

    def handler(self, pod: Pod) -> Handler:
        """Who runs its containers: by the program that the pod was made with, whatever the configuration says now."""
        name, program = pod.record.handler, pod.record.runtime
        if not program:
            return self.own
        peer = self.peers.get(name)
        if peer is None or peer.program != program:
            peer = Peer(name, program, handler_root(self.state, name), self.facts, Features())
        return peer

    def handler_features(self) -> dict[str, Features]:
        """By the names that a pod may ask for."""
        found = {"": self.own.features, self.own.name: self.own.features}
        return found | {name: peer.features for name, peer in self.peers.items()}

    def handlers(self) -> list[Handler]:
        """All that are configured, and those of pods that are here."""
        found: dict[str, Handler] = {"": self.own, **self.peers}
        for pod in self.pods.values():
            found.setdefault(pod.record.handler if pod.record.runtime else "", self.handler(pod))
        return list(found.values())

    def keep_pod(self, pod: Pod) -> None:
        self.pods[pod.id] = pod
        self._by_uid.setdefault(pod.uid, {})[pod.id] = pod

    def forget_pod(self, pod: Pod) -> None:
        self.pods.pop(pod.id, None)
        found = self._by_uid.get(pod.uid, {})
        found.pop(pod.id, None)
        if not found:
            self._by_uid.pop(pod.uid, None)

    def pods_of(self, uid: str) -> list[Pod]:
        """The sandboxes of a pod, oldest first."""
        found = [pod for pod in self._by_uid.get(uid, {}).values() if pod.visible]
        return sorted(found, key=lambda pod: pod.config.metadata.attempt)

    def pod(self, id: str) -> Pod:
        """By its id or the beginning of one. NotFound."""
        found: Pod = _find(self.pods, id, "pod sandbox")
        return found

    def container(self, id: str) -> Container:
        found: Container = _find(self.containers, id, "container")
        return found

    def go_on(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Does what nobody waits for, and keeps it meanwhile: the loop itself holds tasks weakly."""
        task = asyncio.get_running_loop().create_task(work)
        self._going_on.add(task)
        task.add_done_callback(self._going_on.discard)
        return task

    def save_if_possible(self, one: Pod | Container) -> bool:
        """Its record: for what has happened already, and what makes room on a disk that is full."""
        try:
            one.save()
            return True
        except PyrunError as error:
            self.warn(f"{'pod' if isinstance(one, Pod) else 'container'} {one.id[:13]}: {error}")
            return False

    def forget(self, container: Container) -> None:
        container.pod.containers.pop(container.id, None)
        self.containers.pop(container.id, None)


def _find(all: dict[str, Any], id: str, what: str) -> Any:
    found = all.get(id)
    if found is not None and found.visible:
        return found
    matches = [one for key, one in all.items() if id and key.startswith(id) and one.visible]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise NotFound(f"{what} {id!r} is the beginning of {len(matches)} ids", hint="give more of it")
    raise NotFound(f"there is no {what} {id!r}")
