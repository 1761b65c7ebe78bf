"""What the agent knows of a pod and the runtime does not, and where that is kept over a restart of the agent.

A row a pod in SQLite, written when something of it has changed. What runs is the runtime's to say, so nothing of that
is here: with the file lost, pods of files that are still there are taken on by their uid, and back-offs begin anew.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator

import msgspec

from ...errors import PyrunError
from ...kube.objects.containers import ResourceRequirements
from ...kube.objects.pods import Pod
from ..plan.observed import Attempt, BackOff, CgroupLimits, Desired, Hook, ProbeState, Stop
from ..plan.resize import with_allocation

VERSION = 1


class Condition(msgspec.Struct):
    """since: RFC 3339, when the status became what it is."""

    status: str
    since: str


class Record(msgspec.Struct, omit_defaults=True, kw_only=True):
    """file: its source. Times in seconds since 1970; see plan/observed.py for what each part means.

    stops, hooks (by postStart and preStop), probes (by kind), messages: by container id. api: it is an API server's,
    and not a file's. owner: the Deployment of its namespace whose it is. gates: its readiness gates, as somebody has
    set them there.

    end_grace: of a pod that has failed, where that is not its own. disrupted: the reason of its DisruptionTarget. past:
    ended containers that were removed to make room.

    allocated: what the node has given, by container's name, where its words ask for others now; resources: what has
    been written of it, by container id, and given: for the pod's cgroup. pending: why the node does not give them.

    all_restarted: by container's name, the attempt up to which all have ended as all were restarted.

    shown: image reference → id, of those that are not everybody's and of which the pod has shown credentials
    (pulled.py).

    ids: the first of the node's users that it has for its own (user_ids.py), 0 before it has any.
    """

    uid: str
    file: str
    pod: Pod
    created: float
    deleted: float | None = None
    grace: int = 30
    retried: float = 0.0
    admitted: bool | None = None
    failure: tuple[str, str] | None = None
    started: float | None = None
    end_grace: float | None = None
    disrupted: str = ""
    past: dict[str, Attempt] = {}
    restarts: dict[str, BackOff] = {}
    stops: dict[str, Stop] = {}
    hooks: dict[str, dict[str, Hook]] = {}
    probes: dict[str, dict[str, ProbeState]] = {}
    messages: dict[str, str] = {}
    conditions: dict[str, Condition] = {}
    api: bool = False
    gates: dict[str, bool] = {}
    owner: str = ""
    allocated: dict[str, ResourceRequirements] = {}
    resources: dict[str, ResourceRequirements] = {}
    given: CgroupLimits | None = None
    pending: tuple[str, str] | None = None
    all_restarted: dict[str, int] = {}
    ids: int = 0
    shown: dict[str, str] = {}

    def desired(self) -> Desired:
        pod = with_allocation(self.pod, self.allocated)
        asked = self.pod if pod is not self.pod else None
        return Desired(pod, self.uid, self.created, self.deleted, self.grace, self.retried, asked)

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        assert self.pod.metadata is not None
        return self.pod.metadata.namespace or "default", self.pod.metadata.name or ""

    def shift(self, seconds: float) -> None:
        """The clock was set by so much: what is being ended keeps its grace, and what may be active for a time the rest
        of its time."""
        if self.started is not None:
            self.started += seconds
        if self.deleted is not None:
            self.deleted += seconds
        self.stops = {id: stop.shifted(seconds) for id, stop in self.stops.items()}

    def forget_containers(self, alive: set[str]) -> None:
        """Of containers that are not there any more."""
        for kept in (self.stops, self.hooks, self.probes, self.messages, self.resources):
            for id in kept.keys() - alive:
                del kept[id]


class Records:
    """One connection, in whatever thread. A row is some hundred µs, and of a disk that hangs it never ends: so the loop
    has put() and drop(), which come to the file in the order in which they are called."""

    def __init__(self, path: str) -> None:
        self._lock, self._order = threading.Lock(), asyncio.Lock()
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")  # a power cut may take the last rows, never the file
            (found,) = self._db.execute("PRAGMA user_version").fetchone()
            if found > VERSION:
                raise PyrunError(f"{path}: is of a newer pyrun (version {found})", hint="run that one, or remove it")
            self._db.execute("CREATE TABLE IF NOT EXISTS pods (uid TEXT PRIMARY KEY, record BLOB NOT NULL)")
            self._db.execute(f"PRAGMA user_version={VERSION}")
        except sqlite3.Error as error:
            raise PyrunError(f"{path}: {error}", hint="pods of files are taken on without it: remove it") from None
        self._encoder, self._decoder = msgspec.json.Encoder(), msgspec.json.Decoder(Record)

    def all(self, warn: Callable[[str], None]) -> Iterator[Record]:
        """A row that can't be read is told of and left out: its pod is known again by its uid, if a file wants it."""
        for uid, data in self._db.execute("SELECT uid, record FROM pods").fetchall():
            try:
                yield self._decoder.decode(data)
            except msgspec.MsgspecError as error:
                warn(f"the record of pod {uid} can't be read: {error}")
                self.remove(uid)

    def encode(self, record: Record) -> bytes:
        return self._encoder.encode(record)

    async def put(self, uid: str, data: bytes) -> None:
        """When it is written. PyrunError."""
        async with self._order:
            await asyncio.to_thread(self.write, uid, data)

    async def drop(self, uid: str) -> None:
        async with self._order:
            await asyncio.to_thread(self.remove, uid)

    def write(self, uid: str, data: bytes) -> None:
        try:
            with self._lock:
                self._db.execute("INSERT OR REPLACE INTO pods VALUES (?, ?)", (uid, data))
        except sqlite3.Error as error:
            raise PyrunError(f"the record of pod {uid} can't be written: {error}") from None

    def remove(self, uid: str) -> None:
        try:
            with self._lock:
                self._db.execute("DELETE FROM pods WHERE uid = ?", (uid,))
        except sqlite3.Error as error:
            raise PyrunError(f"the record of pod {uid} can't be removed: {error}") from None

    def close(self) -> None:
        with self._lock:
            self._db.close()
