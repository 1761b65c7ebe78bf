"""What happened to pods and the node, as Events of the API server: one that comes again is counted in the first.

One task sends them in their order. While the server does not answer the newest are kept, and of the oldest only their
number. Source: kubernetes client-go tools/record.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

from ...errors import DeadlineExceeded, NotFound, PyrunError, Unavailable
from ...kube.client import Client, TooMany, path
from ..agent.events import Event, Subject
from ..plan.status import rfc3339

COMPONENT = "kubelet"  # by which people and tools look for a node's events
MOST_WAITING, MOST_KNOWN = 1000, 4096
FIRST_S, MOST_S = 1.0, 10.0  # between tries
TRIES = 12
Key = tuple[str, str, str, str]  # uid, type, reason, message
Call = Callable[..., Awaitable[Any]]


def event_object(of: Subject, event: Event, node: str, name: str) -> dict[str, Any]:
    """PURE. name: of the Event. Those of a Node are in the namespace default."""
    subject = {"apiVersion": "v1", "kind": of.kind, "name": of.name, "uid": of.uid}
    if of.namespace:
        subject["namespace"] = of.namespace
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": of.namespace or "default"},
        "involvedObject": subject,
        "type": event.type,
        "reason": event.reason,
        "message": event.message[:1024],  # more is refused
        "source": {"component": COMPONENT, "host": node},
        "reportingComponent": COMPONENT,
        "reportingInstance": node,
        **_times(event),
    }


def _times(event: Event) -> dict[str, Any]:
    return {"count": event.count, "firstTimestamp": rfc3339(event.first), "lastTimestamp": rfc3339(event.last)}


class EventSink:
    """node: whose name is told as the source. told: a line for the log."""

    def __init__(self, client: Client, call: Call, node: str, told: Callable[[str], None]) -> None:
        self._client, self._call, self._node, self._told = client, call, node, told
        self._waiting: OrderedDict[Key, tuple[Subject, Event]] = OrderedDict()
        self._names: OrderedDict[Key, str] = OrderedDict()  # of those that are there
        self._lost = 0
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def add(self, of: Subject, event: Event) -> None:
        """Of one that waits already, the newest count is sent."""
        self._waiting[of.uid, event.type, event.reason, event.message] = of, event
        if len(self._waiting) > MOST_WAITING:
            self._waiting.popitem(last=False)
            self._lost += 1
        self._woken.set()

    async def _run(self) -> None:
        while True:
            await self._woken.wait()
            self._woken.clear()
            while self._waiting:
                key, (of, event) = self._waiting.popitem(last=False)
                await self._send(key, of, event)
            if self._lost:
                self._told(f"{self._lost} events were not sent to the API server: more came than it took")
                self._lost = 0

    async def _send(self, key: Key, of: Subject, event: Event) -> None:
        """What the server does not take (the namespace ends, say) is let go."""
        delay = FIRST_S
        for _ in range(TRIES):
            try:
                await self._write(key, of, event)
                return
            except PyrunError as error:
                if not _may_work_later(error):
                    return
                wait = max(delay, error.after_s) if isinstance(error, TooMany) else delay
                await asyncio.sleep(wait)
                delay = min(delay * 2, MOST_S)
        self._lost += 1

    async def _write(self, key: Key, of: Subject, event: Event) -> None:
        namespace = of.namespace or "default"
        known = self._names.get(key)
        if known is not None and event.count > 1:
            self._names.move_to_end(key)
            try:
                await self._call(self._client.patch, path("v1", "events", namespace, known), _times(event), "strategic")
                return
            except NotFound:  # the server keeps them for an hour
                del self._names[key]
        name = f"{of.name[:200]}.{os.urandom(8).hex()}"
        where = path("v1", "events", namespace)
        await self._call(self._client.create, where, event_object(of, event, self._node, name))
        self._names[key] = name
        if len(self._names) > MOST_KNOWN:
            self._names.popitem(last=False)


def _may_work_later(error: PyrunError) -> bool:
    return isinstance(error, Unavailable | DeadlineExceeded)
