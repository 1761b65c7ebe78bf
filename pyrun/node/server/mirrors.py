"""Mirror pods: what the API server shows of this node's pods of files, so that people and controllers see them.

A mirror only shows: deleting it ends nothing, and it is made again; one of other words, or of a pod that is gone, is
taken out. Source: kubernetes pkg/kubelet/pod/mirror_client.go; what a node may create there is NodeRestriction's.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from ...errors import AlreadyExists, NotFound, PyrunError
from ...kube.client import Client, Conflict, path
from ...kube.objects.pods import Pod
from ...kube.objects.status import PodStatus
from ..agent.agent import Agent, Name
from ..agent.record import Record
from ..agent.sandbox_config import SOURCE
from ..agent.source import uid_of
from ..agent.view import source_word
from ..plan.status import rfc3339
from .statuses import Statuses

MIRROR, HASH, SEEN = (f"kubernetes.io/config.{word}" for word in ("mirror", "hash", "seen"))
FIRST_S, MOST_S = 1.0, 30.0  # between tries
# What only an API server could have given it is not there, so that nobody is ended by a taint of the node.
TOLERATIONS = [{"operator": "Exists", "effect": "NoExecute"}]
Call = Callable[..., Awaitable[Any]]


def mirror_of(record: Record, node: str, node_uid: str) -> dict[str, Any]:
    """PURE. node: the Node, whose it is."""
    value: dict[str, Any] = msgspec.to_builtins(record.pod)
    meta, spec = value["metadata"], value["spec"]
    namespace, name = record.key
    owner = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": node_uid, "controller": True}
    words = words_of(record, node)
    notes = {HASH: words, MIRROR: words, SOURCE: source_word(record), SEEN: rfc3339(record.created)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": meta.get("labels") or {},
            "annotations": {**(meta.get("annotations") or {}), **notes},
            "ownerReferences": [owner],
        },
        "spec": {**spec, "nodeName": node, "tolerations": [*(spec.get("tolerations") or ()), *TOLERATIONS]},
    }


def words_of(record: Record, node: str) -> str:
    """PURE: of a pod of a file, the same for the same words: its uid, and another after a resize, for which nobody may
    change a mirror."""
    return uid_of(record.pod, node)


@dataclass(slots=True)
class _There:
    """A mirror that the server has. words: of which pod, by words_of()."""

    uid: str
    words: str
    generation: int | None
    ending: bool


class Mirrors:
    """call: runs a function in a thread. node_uid: of the Node; empty before it is known. heard: whether the server has
    said which mirrors there are. told: a line for the log."""

    def __init__(
        self,
        client: Client,
        call: Call,
        agent: Agent,
        statuses: Statuses,
        node_uid: Callable[[], str],
        heard: Callable[[], bool],
        told: Callable[[str], None],
    ) -> None:
        self._client, self._call, self._agent, self._statuses = client, call, agent, statuses
        self._node_uid, self._heard, self._told = node_uid, heard, told
        self._there: dict[Name, _There] = {}
        self._last: dict[str, PodStatus] = {}  # by the words of a pod of a file
        self._words: dict[str, str] = {}  # by its uid
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.error: str | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # --- what is told ---

    def status(self, record: Record, status: PodStatus) -> None:
        """Of a pod of a file."""
        words = words_of(record, self._agent.name)
        before = self._words.get(record.uid)
        if words != before:
            self._last.pop(before or "", None)
            self._words[record.uid] = words
            self._woken.set()
        self._last[words] = status
        there = self._there.get(record.key)
        if there is not None and there.words == words:
            self._statuses.write(there.uid, record.key, status, there.generation)

    def ended(self, record: Record) -> None:
        self._last.pop(self._words.pop(record.uid, ""), None)
        self._woken.set()

    def look_again(self) -> None:
        self._woken.set()

    def replaced(self, found: list[Pod]) -> None:
        self._there = {}
        for one in found:
            self.seen(one)
        self._woken.set()

    def seen(self, one: Pod) -> None:
        meta = one.metadata
        assert meta is not None and meta.uid is not None
        key = meta.namespace or "default", meta.name or ""
        words = (meta.annotations or {}).get(MIRROR, "")
        self._there[key] = _There(meta.uid, words, meta.generation, meta.deletionTimestamp is not None)
        self._statuses.shown(meta.uid, key, one.status)
        if words in self._last:
            self._statuses.write(meta.uid, key, self._last[words], meta.generation)
        self._woken.set()

    def removed(self, one: Pod) -> None:
        meta = one.metadata
        assert meta is not None and meta.uid is not None
        key = meta.namespace or "default", meta.name or ""
        there = self._there.get(key)
        if there is not None and there.uid == meta.uid:
            del self._there[key]
        self._statuses.forget(meta.uid)
        self._woken.set()

    # --- what is done ---

    async def _run(self) -> None:
        delay = FIRST_S
        while True:
            await self._woken.wait()
            self._woken.clear()
            try:
                await self._once()
                self.error, delay = None, FIRST_S
                continue
            except PyrunError as error:
                if self.error != str(error):
                    self._told(f"pods of files can't be shown in the API server: {error}")
                self.error = str(error)
            await asyncio.sleep(delay * random.uniform(0.5, 1.5))
            delay = min(delay * 2, MOST_S)
            self._woken.set()

    async def _once(self) -> None:
        """Makes and takes out mirrors until there are those that should be."""
        node_uid = self._node_uid()
        if not (node_uid and self._heard() and self._agent.source.read):
            await asyncio.sleep(FIRST_S)
            self._woken.set()
            return
        wanted = {
            key: actor.record
            for key, actor in self._agent.actors.items()
            if not actor.record.api and actor.record.deleted is None
        }
        name = self._agent.name
        kept = {words_of(actor.record, name) for actor in self._agent.actors.values() if not actor.record.api}
        for key, there in list(self._there.items()):
            if there.ending or (there.words not in kept):
                await self._remove(key, there)
        for key, record in wanted.items():
            if key not in self._there:
                await self._make(key, record, node_uid)

    async def _remove(self, key: Name, there: _There) -> None:
        try:
            await self._call(self._client.delete, path("v1", "pods", *key), grace_s=0, uid=there.uid)
        except (NotFound, Conflict):
            pass
        if self._there.get(key) is there:
            del self._there[key]
        self._statuses.forget(there.uid)

    async def _make(self, key: Name, record: Record, node_uid: str) -> None:
        made = mirror_of(record, self._agent.name, node_uid)
        try:
            found = await self._call(self._client.create, path("v1", "pods", key[0]), made)
        except AlreadyExists:
            return  # the watch tells of it
        self.seen(msgspec.convert(found, Pod))
