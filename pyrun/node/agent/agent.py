"""All pods of a node: which actors there are, and which comes after which.

A pod is known by its namespace and name. When its file says something else, the pod that runs is ended and the next one
begun when nothing is left of it: never two at once, whatever comes in how quick a succession. Only what the agent has
made itself is ended when nobody wants it; pods of others at the same runtime are none of its business.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ...cri.cri import Cri
from ...ending import END_S, cancel
from ...errors import PyrunError, reason
from ...image.garbage import Policy
from ...kube.certificates import write_private
from ...kube.objects.apps import Deployment
from ...kube.objects.config import ConfigMap, Secret
from ...kube.objects.pods import Pod
from ...listen import private_directory
from ...pod.execs import run_to_its_end
from ...pod.pod import Container
from ...pod.pod import Pod as RuntimePod
from ...pod.sandbox.cgroups import SYSTEMD
from ..admission import Allocatable, Neighbour, refusal, resize_refusal
from ..eviction.plan import is_critical
from ..eviction.signals import collect_signals
from ..plan.observed import NodeFacts
from ..plan.resize import is_resize
from ..probes import Prober, Steady
from ..qos import BURSTABLE, pod_requests, qos_class
from ..shutdown import REFUSAL, Ending, Shutdown, plan_shutdown
from ..supported import unsupported
from ..volumes import Objects, Volumes
from .actor import NOT_SUPPORTED, Actor
from .deployments import Deployments
from .events import Events, of_node, of_pod
from .evictor import Eviction, Evictor
from .garbage import ImageGarbage
from .host import Host
from .images import every_image
from .pulled import PRELOADED, Pulled
from .record import Record, Records
from .rotation import rotate_for_ever
from .sandbox_config import API, FILE, SOURCE, Dns, read_resolv
from .source import Source, Wanted, uid_of
from .url_source import Url, UrlSource
from .user_ids import LENGTH, ids_of_sandbox

Name = tuple[str, str]
LATE_S = 5.0  # for the kill at the end of a grace, and what follows it
DRAINED = "drained"  # a file: no pods of files
MANIFESTS, LOGS = "/etc/pyrun/manifests", "/var/log/pods"


@dataclass(frozen=True, slots=True)
class Settings:
    """manifests: a directory; url: another place of them. name: the node's. logs: the directory of all pods' logs;
    log_bytes, log_files: of each container. images: when they go to make room; eviction: when pods do. verify_images:
    of which images a pod has to show credentials (pulled.py). shutdown: how long they have at the node's end.
    configured: (key, value, where it says so), to be shown."""

    manifests: str = MANIFESTS
    name: str = ""
    logs: str = LOGS
    addresses: tuple[str, ...] = ()
    cluster_dns: tuple[str, ...] = ()
    cluster_domain: str = "cluster.local"
    longest_back_off: float = 300.0
    pods: int = 110
    sysctls: tuple[str, ...] = ()
    log_bytes: int = 10 << 20
    log_files: int = 5
    images: Policy = Policy()
    verify_images: str = PRELOADED
    eviction: Eviction = Eviction()
    shutdown: Shutdown = Shutdown()
    url: Url | None = None
    configured: tuple[tuple[str, str, str], ...] = ()


class Agent:
    def __init__(self, cri: Cri, settings: Settings, warn: Callable[[str], None], *, joins: bool = False) -> None:
        """joins: a cluster, in which a pod of a file has the node's name in its own."""
        name = settings.name or socket.gethostname().lower()
        self.name, self.settings, self._cri, self._warn = name, settings, cri, warn
        directory = f"{cri.root}/node"
        private_directory(directory)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        self.host = Host(
            cri=cri,
            records=Records(f"{directory}/pods.db"),
            facts=NodeFacts(name, settings.addresses, settings.longest_back_off),
            allocatable=Allocatable((os.cpu_count() or 1) * 1000, memory, settings.pods, settings.sysctls),
            dns=Dns(settings.cluster_dns, settings.cluster_domain, read_resolv(_read("/etc/resolv.conf"))),
            directory=directory,
            logs=os.path.abspath(settings.logs),
            warn=warn,
            prober=Prober(self._exec, Steady(warn)),
            volumes=Volumes(f"{directory}/volumes", f"{cri.state}/volumes"),
            pulled=Pulled(f"{directory}/pulled.json", cri.images, settings.verify_images, warn),
            started=time.time(),
            systemd=cri.pods.settings.cgroup_driver == SYSTEMD,
            refusal=self._refusal,
            resize_refusal=self._resize_refusal,
            gone=self._gone,
            room=self._room,
            burstable=self._burstable,
            ids=self._ids,
        )
        self.events = Events(lambda event: self.host.event(of_node(name), event, api=True))
        self.garbage = ImageGarbage(cri.images, settings.images, self._wanted_images, self.events)
        self.evictor = Evictor(
            settings.eviction,
            lambda: collect_signals(directory, f"{cri.root}/image"),
            lambda: self.actors.values(),
            self.garbage,
            self.events,
            self._room,
            spares=joins,
        )
        self.actors: dict[Name, Actor] = {}
        self.next: dict[Name, Record] = {}
        self.barred: dict[Name, Record] = {}  # of an API server, whose name a file's pod has
        self.closing = False  # the node shuts down
        self._asking = False  # who waits for room
        self.heard: Callable[[], bool] | None = None  # of an API server: whether it has said what it wants
        self.ended: Callable[[Record], None] = lambda record: None  # told when nothing is left of a pod
        self.deployments = Deployments(name, self.actors, self._begin)
        self.host.planned = self.deployments.stir
        self._tasks: set[asyncio.Task[None]] = set()
        records = list(self.host.records.all(warn))
        last = [Wanted(r.pod, r.file, r.file) for r in records if r.deleted is None and not (r.api or r.owner)]
        self._records = records
        self.source = Source(settings.manifests, name, self._wanted, warn, last, f"-{name}" if joins else "")
        self._url = UrlSource(settings.url, self.source, directory, name, warn, last) if settings.url else None

    async def _exec(self, id: str, argv: tuple[str, ...], timeout: float) -> tuple[int, bytes, bytes]:
        c = self._cri.pods.container(id)
        return await asyncio.to_thread(run_to_its_end, self._cri.pods, c, argv, timeout)

    def start(self) -> None:
        self.host.volumes.prepare()
        try:
            for directory in (self.settings.manifests, self.host.logs):
                os.makedirs(directory, 0o755, exist_ok=True)
            at = os.stat(self.settings.manifests)
        except OSError as error:
            raise PyrunError(f"{error.filename}: {reason(error)}") from None
        if at.st_uid != os.geteuid() or at.st_mode & 0o022:
            raise PyrunError(
                f"{self.settings.manifests}: others than root may write there, and who may is root on this node",
                hint=f"chown root {self.settings.manifests} && chmod go-w {self.settings.manifests}",
            )
        self.host.prober.start()
        self._cri.events.listeners.append(self._told)
        for record in self._records:
            self._begin(record)
            if record.api and record.deleted is None and self.heard is None:
                self.actors[record.key].delete()  # nobody else could ever end it
        self._room()  # this node may have become larger
        self._task(rotate_for_ever(self._cri.pods, self.settings.log_bytes, self.settings.log_files, self._warn))
        self._task(self.garbage.for_ever())
        self._task(self.evictor.for_ever())
        self.source.start()
        if self._url is not None:
            self._task(self._url.for_ever())

    async def stop(self) -> None:
        """The actors end, and pods run on."""
        self.source.stop()
        self.deployments.stop()
        with contextlib.suppress(ValueError):
            self._cri.events.listeners.remove(self._told)
        await cancel(self._tasks)
        if self._url is not None:
            self._url.close()
        self.host.prober.close()
        try:
            await asyncio.wait_for(asyncio.to_thread(self.host.records.close), END_S)
        except TimeoutError:
            self._warn("the pods' records are not closed: their disk does not answer")

    async def shut_down(self) -> None:
        """Ends all pods, as the node does; who has not ended in its time is left to whoever ends the node."""
        self.closing = True
        self.events.add("Normal", "Shutdown", "Shutdown manager detected shutdown event")
        pods = [(a.record.desired().spec.priority or 0, a) for a in self.actors.values() if not a.is_finished]
        by_name = {actor.name: actor for _, actor in pods}
        endings = [Ending(actor.name, priority, actor.grace) for priority, actor in pods]
        for group in plan_shutdown(endings, self.settings.shutdown):
            waits = []
            for name, grace in group.pods:
                by_name[name].terminate(grace)
                waits.append(asyncio.create_task(by_name[name].done.wait()))
            try:
                _, late = await asyncio.wait(waits, timeout=group.seconds + LATE_S)
            finally:  # also where it is called off
                for task in waits:
                    task.cancel()
            if late:
                self._warn(f"{len(late)} of {len(waits)} pods have not ended within {group.seconds:.0f} s")

    def called_off(self) -> None:
        """The machine's shutdown: pods are taken again, and those of files that have ended for it come again (≠ a
        kubelet). One of an API server stays as it is: that has been told, and its controllers have made others."""
        self.closing = False
        self.events.add("Normal", "Shutdown", "The shutdown was called off")
        for actor in self.actors.values():
            actor.go_on()
        self._room()

    # --- what is wanted ---

    def _wanted(self) -> None:
        """The files say something new."""
        found = self.source.objects
        pods: dict[Name, Record] = {}
        config_maps: dict[Name, ConfigMap] = {}
        secrets: dict[Name, Secret] = {}
        deployments: dict[Name, Wanted] = {}
        for (_, namespace, name), one in found.items():
            match one.object:
                case Pod():
                    pods[namespace, name] = self._record(one.object, one.file)
                case ConfigMap():
                    config_maps[namespace, name] = one.object
                case Secret():
                    secrets[namespace, name] = one.object
                case Deployment():
                    deployments[namespace, name] = one
        if self.drained:
            pods, deployments = self._still_wanted(pods, deployments)
        before = self.host.objects
        allocatable = {"cpu": self.host.allocatable.cpu, "memory": self.host.allocatable.memory}
        self.host.objects = Objects(config_maps, secrets, allocatable)
        changed = {("ConfigMap", *key) for key in _differ(before.config_maps, config_maps)}
        changed |= {("Secret", *key) for key in _differ(before.secrets, secrets)}
        for key, actor in list(self.actors.items()):
            if not (actor.record.api or actor.record.owner) and key not in pods:
                self.next.pop(key, None)
                actor.delete()
        self.deployments.want(deployments, frozenset() if self.drained else self.source.broken)
        for key, record in pods.items():
            self._want(key, record)
        if changed:
            for actor in self.actors.values():
                if not actor.record.api:
                    actor.objects_changed(changed)
        self.sweep()

    # --- drained ---

    @property
    def drained(self) -> bool:
        return os.path.exists(f"{self.host.directory}/{DRAINED}")

    def drain(self) -> None:
        """No pod of a file runs any more, over restarts, until resume(): those that the node needs go last."""
        write_private(f"{self.host.directory}/{DRAINED}", b"")
        self._look_again()

    def resume(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self.host.directory}/{DRAINED}")
        self._look_again()

    def _look_again(self) -> None:
        if self.source.read:
            self._wanted()

    def _still_wanted(
        self, pods: dict[Name, Record], deployments: dict[Name, Wanted]
    ) -> tuple[dict[Name, Record], dict[Name, Wanted]]:
        """Of a drained node: what is critical, until the others are gone, and no new pod of a file."""
        files = [(key, actor.record) for key, actor in self.actors.items() if not actor.record.api]
        if all(is_critical(record.pod.spec) for _, record in files):
            return {}, {}
        kept = {key: pods[key] for key, record in files if key in pods and is_critical(record.pod.spec)}
        return kept, {
            key: one
            for key, one in deployments.items()
            if isinstance(one.object, Deployment) and is_critical(one.object.spec.template.spec)
        }

    def sweep(self) -> None:
        """Removes what nobody wants, where everybody has been heard."""
        if self.source.complete and (self.heard is None or self.heard()):
            self.garbage.heard.set()
            self._task(self._remove_orphans())

    def serve(self, record: Record) -> None:
        """A pod of the API server, as it is there now."""
        actor = self.actors.get(record.key)
        if actor is not None and actor.record.uid == record.uid:
            actor.update(record.pod, record.gates)
            if record.deleted is not None:
                actor.delete(record.grace)
        elif actor is not None and not actor.record.api:
            self._bar(record, actor)
        else:
            self._want(record.key, record)

    def _bar(self, record: Record, actor: Actor) -> None:
        """The pod of the file counts first; the other one is told so, and begins when that has gone."""
        before = self.barred.get(record.key)
        if before is None or before.uid != record.uid:
            text = f"it does not run on {self.name}: {actor.record.file} there has a pod of this name"
            self._warn(f"pod {actor.name} of the API server: {text}")
            told = Events(lambda event: self.host.event(of_pod(record), event, api=True))
            told.add("Warning", "NameConflict", text)
            if before is not None:
                self.ended(before)
        self.barred[record.key] = record
        if record.deleted is not None:  # nothing of it is here
            del self.barred[record.key]
            self.ended(record)

    def unserve(self, uid: str) -> None:
        """The API server has it no more."""
        for waiting in (self.next, self.barred):
            for key, record in list(waiting.items()):
                if record.uid == uid:
                    del waiting[key]
                    self.ended(record)
        for actor in self.actors.values():
            if actor.record.uid == uid:
                actor.delete()

    def _record(self, pod: Pod, file: str) -> Record:
        spec = pod.spec
        assert spec is not None
        grace = spec.terminationGracePeriodSeconds or 0
        return Record(uid=uid_of(pod, self.name), file=file, pod=pod, created=time.time(), grace=grace)

    def _want(self, key: Name, record: Record) -> None:
        actor = self.actors.get(key)
        if actor is None:
            self._begin(record)
        elif actor.may_resize and is_resize(actor.record.pod, record.pod):
            actor.record.file = record.file
            self.next.pop(key, None)
            actor.update(record.pod, actor.record.gates)
        elif actor.record.deleted is None and self._same_words(actor.record.pod, record):
            actor.record.file = record.file
            self.next.pop(key, None)
        else:
            self.next[key] = record
            actor.delete()

    def _same_words(self, pod: Pod, record: Record) -> bool:
        """Whatever the pod's own uid is: after a resize that is of the words before it."""
        return pod == record.pod or uid_of(pod, self.name) == record.uid

    def recorded(self) -> list[str]:
        """The uids of the pods that an agent before this one has left."""
        return [record.uid for record in self._records]

    def _begin(self, record: Record) -> None:
        actor = self.actors[record.key] = Actor(self.host, record)
        self._task(actor.run())

    def _task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._warn(f"a pod's actor has ended: {type(error).__name__}: {error}")

    def _gone(self, record: Record) -> None:
        """Nothing is left of a pod: the one that waits for its name comes."""
        key = record.key
        self.actors.pop(key, None)
        self.ended(record)
        if (after := self.next.pop(key, None) or self.barred.pop(key, None)) is not None:
            after.created = time.time()
            self._begin(after)
        elif self.drained:
            self._look_again()
        self.deployments.stir()
        self._room()

    async def _remove_orphans(self) -> None:
        """Pods of an agent that has lost its records, which no file wants any more."""
        for pod in list(self._cri.pods.pods.values()):
            ours = pod.visible and pod.config.annotations.get(SOURCE) in (FILE, API)
            if ours and not self._wants(pod.config.metadata.uid):
                self._warn(f"pod {pod.config.metadata.name}: nobody wants it any more, so it is removed")
                try:
                    await self._cri.pods.remove(pod.id)
                except PyrunError as error:
                    self._warn(f"pod {pod.id[:13]} can't be removed: {error}")
        for uid in await asyncio.to_thread(self.host.volumes.known):
            if not self._wants(uid):
                try:
                    await asyncio.to_thread(self.host.volumes.remove, uid)
                except PyrunError as error:
                    self._warn(str(error))

    def _wants(self, uid: str) -> bool:
        """As of now: pods come while others are removed."""
        records = [*(actor.record for actor in self.actors.values()), *self.next.values()]
        return any(record.uid == uid for record in records)

    # --- what happens ---

    def _told(self, what: RuntimePod | Container, how: str) -> None:
        pod = what.pod if isinstance(what, Container) else what
        metadata = pod.config.metadata
        actor = self.actors.get((metadata.namespace, metadata.name))
        if actor is not None and actor.record.uid == metadata.uid:
            actor.wake()

    def _refusal(self, record: Record) -> tuple[str, str] | None:
        faults = list(unsupported(record.pod, self.name, served=True)) if record.api else []
        if faults:
            return NOT_SUPPORTED, "; ".join(f"{fault.pointer} {fault.text}" for fault in faults)
        if self.closing:
            return REFUSAL
        others = self._neighbours(record)
        return self.evictor.refusal(record) or refusal(record.desired().spec, self.host.allocatable, others)

    def _resize_refusal(self, record: Record) -> tuple[str, str] | None:
        wanted = record.pod.spec
        assert wanted is not None
        others = self._neighbours(record)
        return resize_refusal(record.desired().spec, wanted, self.host.allocatable, others)

    def _neighbours(self, record: Record) -> list[Neighbour]:
        return [
            Neighbour(other.name, other.record.desired().spec)
            for other in self.actors.values()
            if other.record is not record and other.record.admitted and not other.is_finished
        ]

    def _ids(self) -> Iterator[range]:
        """Sandboxes are asked as well: pods that others made have some, and those of an agent that lost its records."""
        for record in [*(actor.record for actor in self.actors.values()), *self.next.values()]:
            if record.ids:
                yield range(record.ids, record.ids + LENGTH)
        for pod in self._cri.pods.pods.values():
            yield from ids_of_sandbox(pod)

    def _burstable(self) -> int:
        specs = [actor.record.desired().spec for actor in self.actors.values() if not actor.is_finished]
        return sum(pod_requests(spec).get("cpu", 0) for spec in specs if qos_class(spec) == BURSTABLE)

    def _wanted_images(self) -> dict[str, str]:
        """Reference → the pod that names it, of those that are not through."""
        records = [actor.record for actor in self.actors.values() if not actor.is_finished]
        found = {}
        for record in [*records, *self.next.values()]:
            for image, _ in every_image(record.desired()):
                found[image] = "/".join(record.key)
        return found

    def _room(self) -> None:
        """What waits is asked again: first who runs and wants more, by priority, and from the first one on when one has
        it, as that may need less of something else."""
        if self._asking:
            return
        self._asking = True
        try:
            while any(actor.allocate() for actor in self._deferred()):
                pass
        finally:
            self._asking = False
        for actor in self.actors.values():
            actor.ask_again()

    def _deferred(self) -> list[Actor]:
        return sorted([a for a in self.actors.values() if a.is_deferred], key=lambda a: a.resize_order)


def _differ(a: Mapping[Name, object], b: Mapping[Name, object]) -> set[Name]:
    return {key for key in a.keys() | b.keys() if a.get(key) != b.get(key)}


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
