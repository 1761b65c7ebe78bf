"""GetContainerEvents: what became of which container or pod, in order, with the pod's status as of then.

A reader has a queue of its own with an end: one that is too slow is cut off, and lists anew, as the kubelet does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

from .. import cri_api as v1
from ..errors import ResourceExhausted
from ..pod.pod import Container, Pod
from .statuses import container_status, pod_status

MOST_WAITING = 1000
MOST_READERS = 16
KINDS = {
    "created": v1.CONTAINER_CREATED_EVENT,
    "started": v1.CONTAINER_STARTED_EVENT,
    "stopped": v1.CONTAINER_STOPPED_EVENT,
    "deleted": v1.CONTAINER_DELETED_EVENT,
}


class Events:
    """listeners: of this process, told before all readers of what and how; they may not wait."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[Pod | Container, str], None]] = []
        self._readers: set[asyncio.Queue[bytes]] = set()

    def tell(self, what: Pod | Container, how: str) -> None:
        for listener in self.listeners:
            listener(what, how)
        if not self._readers:
            return
        pod = what if isinstance(what, Pod) else what.pod
        event = v1.ContainerEventResponse(
            container_id=what.id,
            container_event_type=KINDS[how],
            created_at=time.time_ns(),
            pod_sandbox_status=pod_status(pod),
            containers_statuses=[container_status(c) for c in pod.containers.values() if c.visible],
        ).SerializeToString()  # as of now, and once for all readers
        for queue in list(self._readers):
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                self._readers.discard(queue)

    async def read(self) -> AsyncIterator[bytes]:
        """Encoded ContainerEventResponses. ResourceExhausted when the reader was too slow."""
        if len(self._readers) >= MOST_READERS:
            raise ResourceExhausted(f"{MOST_READERS} clients read events already")
        queue: asyncio.Queue[bytes] = asyncio.Queue(MOST_WAITING)
        self._readers.add(queue)
        try:
            while queue in self._readers or not queue.empty():
                yield await queue.get()
            raise ResourceExhausted(f"more than {MOST_WAITING} events were not read", hint="list, and read again")
        finally:
            self._readers.discard(queue)
