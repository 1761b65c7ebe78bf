"""What became of pods, written to the API server: of each the newest, and one write at a time.

While the server does not answer only the newest status of a pod is kept, and it is tried again. A pod that was deleted
there is taken out when nothing is left of it here, after its last status. Source: kubernetes pkg/kubelet/status.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from ...errors import InvalidArgument, NotFound, PyrunError
from ...kube.client import Client, Conflict, path
from ...kube.objects.pods import Pod
from ...kube.objects.status import PodStatus
from ..agent.record import Record
from ..plan.resize import IN_PROGRESS, PENDING

FIRST_S, MOST_S = 0.5, 30.0  # between tries
MERGED = ("podIPs", "hostIPs")  # lists that a strategic patch would merge
# What an absent field of ours takes away there.
OURS = (
    "reason", "message", "podIP", "podIPs", "hostIP", "hostIPs", "initContainerStatuses", "ephemeralContainerStatuses",
    "startTime",
)  # fmt: skip
OUR_CONDITIONS = frozenset((PENDING, IN_PROGRESS))  # which come and go
Call = Callable[..., Awaitable[Any]]


def patch_of(status: PodStatus, generation: int | None, stale: Iterable[str] = ()) -> dict[str, Any]:
    """PURE: a strategic merge patch of a pod's status. Conditions of others stay; stale: types of ours that go. What
    was the matter with one goes with it: a patch merges them, and leaves what it does not name."""
    found: dict[str, Any] = msgspec.to_builtins(status)
    for name in OURS:
        found.setdefault(name, None)
    for name in MERGED:
        if found[name] is not None:
            found[name] = [{"$patch": "replace"}, *found[name]]
    for condition in found.get("conditions") or ():
        condition.setdefault("reason", None)
        condition.setdefault("message", None)
    if generation is not None:
        found["observedGeneration"] = generation
        for condition in found.get("conditions") or ():
            condition["observedGeneration"] = generation
    return without(found, stale)


def without(patch: dict[str, Any], stale: Iterable[str]) -> dict[str, Any]:
    """PURE: the patch, and conditions of these types go."""
    gone = [{"$patch": "delete", "type": type} for type in sorted(stale)]
    return {**patch, "conditions": [*(patch.get("conditions") or ()), *gone]} if gone else patch


def differs(wanted: dict[str, Any], there: PodStatus | None) -> bool:
    """PURE: whether the server has another phase or other conditions than we wrote: somebody else has."""
    if there is None:
        return True
    found = {c.type: c.status for c in there.conditions or ()}
    told = {c["type"]: c.get("status") for c in wanted.get("conditions") or ()}  # None: it is to be gone
    return wanted.get("phase") != there.phase or any(found.get(type) != status for type, status in told.items())


@dataclass(slots=True)
class _Entry:
    """wanted, sent: patches. deleted: it was asked to go, there. gone: nothing is left of it here. again: somebody has
    written something else meanwhile. shown: conditions of ours that the server may have, and that may have to go."""

    uid: str
    namespace: str
    name: str
    wanted: dict[str, Any] | None = None
    sent: dict[str, Any] | None = None
    deleted: bool = False
    gone: bool = False
    again: bool = False
    shown: frozenset[str] = frozenset()
    task: asyncio.Task[None] | None = None


class Statuses:
    """call: runs a function in a thread. told: a line for the log."""

    def __init__(self, client: Client, call: Call, told: Callable[[str], None]) -> None:
        self._client, self._call, self._told = client, call, told
        self._entries: dict[str, _Entry] = {}
        self.error: str | None = None

    def told(self, record: Record, status: PodStatus) -> None:
        """A pod's status now."""
        if not record.api:
            return
        meta = record.pod.metadata
        self.write(record.uid, record.key, status, meta.generation if meta else None)

    def write(self, uid: str, key: tuple[str, str], status: PodStatus, generation: int | None) -> None:
        """Of the pod that the server has by this uid."""
        entry = self._entries.setdefault(uid, _Entry(uid, *key))
        told = OUR_CONDITIONS & {c.type for c in status.conditions or ()}
        entry.wanted = patch_of(status, generation, entry.shown - told)
        entry.shown |= told
        self._kick(entry)

    def seen(self, record: Record, there: Pod) -> None:
        """The pod, as the server has it now."""
        entry = self._entry(record)
        entry.deleted = there.metadata is not None and there.metadata.deletionTimestamp is not None
        self.shown(entry.uid, record.key, there.status)
        if entry.wanted is None or not differs(entry.wanted, there.status):
            return
        if entry.task is not None:
            entry.again = True  # it may have been written after what is under way
        elif entry.sent is not None:
            entry.sent = None
            self._kick(entry)

    def shown(self, uid: str, key: tuple[str, str], there: PodStatus | None) -> None:
        """The status that the server has: an agent before this one may have told of a resize that is no more."""
        entry = self._entries.setdefault(uid, _Entry(uid, *key))
        found = OUR_CONDITIONS & {c.type for c in (there.conditions if there is not None else None) or ()}
        entry.shown |= found
        if entry.wanted is not None and (stale := found - {c["type"] for c in entry.wanted.get("conditions") or ()}):
            entry.wanted = without(entry.wanted, stale)
            self._kick(entry)

    def gone(self, record: Record) -> None:
        """Nothing is left of it here."""
        if record.api:
            entry = self._entry(record)
            entry.gone = True
            self._kick(entry)

    def forget(self, uid: str) -> None:
        """The server has it no more."""
        entry = self._entries.pop(uid, None)
        if entry is not None and entry.task is not None:
            entry.task.cancel()

    async def settle(self, patience: float) -> None:
        """Until all is written, or the time is over."""
        tasks = [entry.task for entry in self._entries.values() if entry.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=patience)

    async def stop(self) -> None:
        tasks = [entry.task for entry in self._entries.values() if entry.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _entry(self, record: Record) -> _Entry:
        return self._entries.setdefault(record.uid, _Entry(record.uid, *record.key))

    def _kick(self, entry: _Entry) -> None:
        if entry.task is None and (entry.gone or entry.wanted != entry.sent):
            entry.task = asyncio.get_running_loop().create_task(self._write(entry))

    async def _write(self, entry: _Entry) -> None:
        """Until the server has what there is."""
        delay = FIRST_S
        try:
            while entry.gone or entry.wanted != entry.sent:
                try:
                    if await self._once(entry):
                        return
                    delay = FIRST_S
                    self.error = None
                except (NotFound, Conflict):  # it is there no more, or another of its name is
                    self._entries.pop(entry.uid, None)
                    return
                except PyrunError as error:
                    if self.error is None:
                        self._told(f"pod {entry.namespace}/{entry.name}: its status can't be written: {error}")
                    self.error = str(error)
                    await asyncio.sleep(delay * random.uniform(0.5, 1.5))
                    delay = min(delay * 2, MOST_S)
        finally:
            entry.task = None

    async def _once(self, entry: _Entry) -> bool:
        """True: there is nothing more to be written of it, ever."""
        wanted = entry.wanted
        if wanted is not None and wanted != entry.sent:
            patch = {"metadata": {"uid": entry.uid}, "status": wanted}
            where = path("v1", "pods", entry.namespace, entry.name, "status")
            try:
                await self._call(self._client.patch, where, patch, "strategic")
            except InvalidArgument as error:  # it will never take that: the next status may be another
                self._told(f"pod {entry.namespace}/{entry.name}: its status is refused: {error}")
            entry.sent, entry.again = (None if entry.again else wanted), False
        if not entry.gone or entry.wanted != entry.sent:
            return False
        if entry.deleted:
            where = path("v1", "pods", entry.namespace, entry.name)
            await self._call(self._client.delete, where, grace_s=0, uid=entry.uid)
        self._entries.pop(entry.uid, None)
        return True
