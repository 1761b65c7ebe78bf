"""What an actor and its carrier both have of a pod: its record, its events, and where its files are."""

from __future__ import annotations

import asyncio

from ...errors import PyrunError
from ...pod.pod import Pod as Sandbox
from ..volumes import Objects
from .events import Events, of_pod
from .host import Host
from .record import Record


class Kept:
    """gone: nothing of the pod is left, and its record neither."""

    def __init__(self, host: Host, record: Record) -> None:
        self.host, self.record = host, record
        self.events = Events(lambda event: host.event(of_pod(record), event, api=record.api))
        self.gone = False
        self._written, self._saving = b"", asyncio.Lock()

    def sandboxes(self) -> list[Sandbox]:
        """Oldest first."""
        return self.host.cri.pods.pods_of(self.record.uid)

    async def objects(self) -> Objects:
        """What its volumes and variables refer to. PyrunError where that is not known now."""
        return await self.host.served(self.record) if self.record.api else self.host.objects

    async def save(self) -> None:
        """Writes the record down where it has changed: what it is now is on the disk when this returns."""
        async with self._saving:
            data = self.host.records.encode(self.record)
            if data != self._written and not self.gone:
                try:
                    await self.host.records.put(self.record.uid, data)
                    self._written = data
                except PyrunError as error:
                    self.host.warn(str(error))

    async def forget(self) -> None:
        """PyrunError."""
        async with self._saving:
            await self.host.records.drop(self.record.uid)
            self.gone = True

    @property
    def directory(self) -> str:
        return f"{self.host.directory}/pods/{self.record.uid}"

    @property
    def log_directory(self) -> str:
        namespace, name = self.record.key
        return f"{self.host.logs}/{namespace}_{name}_{self.record.uid}"

    def message_file(self, name: str, attempt: int) -> str:
        return f"{self.directory}/messages/{name}.{attempt}"

    def log_file(self, name: str, attempt: int) -> str:
        return f"{self.log_directory}/{name}/{attempt}.log"
