"""Images that nobody needs are removed when the disk is full: each five minutes, as by a kubelet, and when asked."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from ...errors import FailedPrecondition, PyrunError, reason
from ...image.garbage import Disk, Garbage, Policy, plan_image_garbage
from ...image.store import Images
from ...kube.quantity import human_bytes
from .events import Events

PERIOD_S = 300.0


class ImageGarbage:
    """wanted: reference → the pod that names it, of the pods that are known; asked in the loop. events: the node's."""

    def __init__(self, images: Images, policy: Policy, wanted: Callable[[], Mapping[str, str]], events: Events) -> None:
        self._images, self.policy, self._wanted, self._events = images, policy, wanted, events
        self._lock = asyncio.Lock()
        self.heard = asyncio.Event()  # set when all that is wanted is known

    async def for_ever(self) -> None:
        await self.heard.wait()
        while True:
            try:
                await self.collect()
            except Exception as error:  # what goes wrong once, such as a full disk's database, is not the end of it
                self._events.add("Warning", "ImageGCFailed", f"{type(error).__name__}: {error}")
            await asyncio.sleep(PERIOD_S)

    async def plan(self, *, all: bool = False) -> Garbage:
        """What would go now. PyrunError."""
        return await asyncio.to_thread(self._plan, self._wanted(), all)

    async def collect(self, *, all: bool = False) -> int:
        """Carries the plan out. Returns the bytes that went; what can't be done is an event."""
        async with self._lock:
            try:
                found = await self.plan(all=all)
            except PyrunError as error:
                self._events.add("Warning", "ImageGCFailed", str(error))
                return 0
            freed = 0
            for verdict in found.going:
                if verdict.image.id in await asyncio.to_thread(self._known, self._wanted()):
                    continue  # by a pod that has come meanwhile
                try:
                    await asyncio.to_thread(self._images.remove, verdict.image.id)
                except FailedPrecondition:  # a container has come meanwhile
                    continue
                except (PyrunError, OSError) as error:
                    self._events.add("Warning", "ImageGCFailed", f"image {verdict.image.name}: {error}")
                    continue
                freed += verdict.frees
                text = f"{verdict.image.name}: {verdict.why}; {human_bytes(verdict.frees)} bytes are free again"
                self._events.add("Normal", "ImageRemoved", text)
            if found.short:
                self._events.add("Warning", "FreeDiskSpaceFailed", found.why)
            return freed

    def _plan(self, wanted: Mapping[str, str], all: bool) -> Garbage:
        known = self._known(wanted)
        found = [replace(one, wanted=known.get(one.id, "")) for one in self._images.stored()]
        return plan_image_garbage(found, self._disk(), self.policy, time.time(), all=all)

    def _known(self, wanted: Mapping[str, str]) -> dict[str, str]:
        """Image id → pod."""
        found = {}
        for reference, pod in wanted.items():
            try:
                found[self._images.find(reference).id] = pod
            except PyrunError:  # not here, or no reference at all
                continue
        return found

    def _disk(self) -> Disk:
        root = self._images.contents.root
        try:
            at = os.statvfs(root)
        except OSError as error:
            raise PyrunError(f"{root}: {reason(error)}") from None
        return Disk(at.f_blocks * at.f_frsize, at.f_bavail * at.f_frsize)
