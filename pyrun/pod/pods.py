"""The pods and containers of this node, and what is done to them.

Everything here runs on the event loop; what blocks (plans, files, the supervisor, the network) runs in threads, under
the lock of the pod or the container that it changes. A change that has begun is finished whoever waits for it; equal
requests join (joined.py). A record is written before anything is made and says `ready` or `created` only when all is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import time
from collections.abc import Callable
from typing import Any

from .. import cri_api as v1
from ..errors import AlreadyExists, FailedPrecondition, NotFound, PyrunError, reason
from ..facts import Facts
from ..runtime.store import Store, boot_id, start_time
from . import container as containers
from .joined import Joined
from .messages import LIVE
from .network import Network, PodNet
from .pod import Container, Pod, container_key, pod_key
from .records import (
    CREATED,
    MAKING,
    NOTREADY,
    READY,
    REMOVING,
    UNKNOWN,
    ContainerRecord,
    PodRecord,
    names_in,
    new_id,
    read_record,
    write_record,
)
from .sandbox import end_sandbox, load_sandbox, make_sandbox, prepare_state
from .spec import Settings
from .supervisor import PIDS, Gone, Supervisor
from .trees import remove_tree

HOLDER_S = 5.0


class Pods:
    """root, state: directories, absolute. images: where containers' roots come from. changed: called with a container
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
    ) -> None:
        self.root, self.state = root, state
        self.images, self.network, self.facts, self.settings, self.warn = images, network, facts, settings, warn
        self.store = Store(f"{state}/containers")
        self.pods: dict[str, Pod] = {}
        self.containers: dict[str, Container] = {}
        self.joined = Joined()
        self.changed: Callable[[Pod | Container, str], None] = lambda what, how: None

    # --- look-up ------------------------------------------------------------------------------------------------------

    def pod(self, id: str) -> Pod:
        """By its id or the beginning of one. NotFound."""
        found: Pod = _find(self.pods, id, "pod sandbox")
        return found

    def container(self, id: str) -> Container:
        found: Container = _find(self.containers, id, "container")
        return found

    # --- pods ---------------------------------------------------------------------------------------------------------

    async def run(self, config: Any, handler: str) -> str:
        """Makes a pod; the id of the one that is there when it is asked for again."""
        return await self.joined.run(("pod", pod_key(config)), lambda: self._run(config, handler))

    async def _run(self, config: Any, handler: str) -> str:
        data = config.SerializeToString(deterministic=True)
        for pod in self.pods.values():
            if pod_key(pod.config) == pod_key(config):
                if pod.ready and pod.record.config == data:
                    return pod.id
                raise AlreadyExists(
                    f"pod {config.metadata.name} in {config.metadata.namespace} is there",
                    hint=f"remove {pod.id[:13]} first, or count the attempt up",
                )
        record = PodRecord(new_id(), data, handler, created=time.time_ns(), boot_id=boot_id())
        pod = Pod(record, self.root, self.state)
        self.pods[pod.id] = pod
        async with pod.lock:
            try:
                await asyncio.to_thread(self._make_pod, pod)
            except BaseException:
                self.pods.pop(pod.id)
                await asyncio.to_thread(self._unmake, pod)
                raise
        self._watch(pod)
        self.changed(pod, "created")
        self.changed(pod, "started")
        return pod.id

    def _make_pod(self, pod: Pod) -> None:
        os.makedirs(pod.directory, 0o700)
        write_record(f"{pod.directory}/pod.json", pod.record)
        pod.sandbox = make_sandbox(pod.run_directory, pod.id, pod.config, self.facts)
        if pod.sandbox.net:
            result = self.network.add(PodNet.of(pod.id, pod.config, pod.sandbox.net))
            pod.ips = list(result.ips)
        self._launch(pod)
        if pod.config.linux.security_context.namespace_options.pid == v1.POD:
            assert pod.supervisor is not None
            with contextlib.closing(pod.supervisor.hold_pids(self.facts, pod.sandbox.user)) as holder:
                pod.sandbox.pid = f"/proc/{holder.pid}/ns/pid"
        pod.record.network = {"ips": pod.ips}
        pod.record.state = READY
        write_record(f"{pod.directory}/pod.json", pod.record)

    def _launch(self, pod: Pod) -> None:
        assert pod.sandbox is not None
        path = pod.sandbox.cgroup
        cgroup = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if path else None
        try:
            pod.supervisor = Supervisor.launch(pod.run_directory, pod.id, cgroup=cgroup)
        finally:
            if cgroup is not None:
                os.close(cgroup)

    def _unmake(self, pod: Pod) -> None:
        """Nothing is left of it, but what its containers say of themselves."""
        self._release(pod)
        self._forget_files(pod.directory)

    def _release(self, pod: Pod) -> None:
        """All that a pod has of the node: also of one that is half made. PyrunError when something stays; then all
        else has been tried."""
        problems = []
        if pod.supervisor is not None:
            with contextlib.suppress(PyrunError):
                _end_holder(pod.supervisor)
                pod.supervisor.end()
            pod.supervisor.close()
            pod.supervisor = None
        netns = (pod.sandbox.net if pod.sandbox else None) or ""
        try:
            self.network.remove(PodNet(pod.id, netns=netns))
        except PyrunError as error:
            problems.append(error)
        try:
            end_sandbox(pod.run_directory)
            _remove(pod.run_directory)  # what the supervisor had there
        except PyrunError as error:
            problems.append(error)
        pod.sandbox = None
        if problems:
            raise problems[0]

    async def stop(self, id: str) -> None:
        """Ends all that runs in it and gives back what it has. No error for one that is not there or has stopped."""
        try:
            pod = self.pod(id)
        except NotFound:
            return
        await self.joined.run(("stop", pod.id), lambda: self._stop(pod))

    async def _stop(self, pod: Pod) -> None:
        pod.not_ready()
        async with pod.lock:
            if pod.record.released:
                return
            await asyncio.to_thread(write_record, f"{pod.directory}/pod.json", pod.record)
            await asyncio.gather(*(containers.stop(self, c, 0) for c in list(pod.containers.values())))
            self._unwatch(pod)
            await asyncio.to_thread(self._release, pod)
            pod.record.released = True
            pod.record.state = NOTREADY
            await asyncio.to_thread(write_record, f"{pod.directory}/pod.json", pod.record)
        self.changed(pod, "stopped")

    async def remove(self, id: str) -> None:
        """Stops it, and removes it with its containers. No error for one that is not there."""
        try:
            pod = self.pod(id)
        except NotFound:
            return
        await self.joined.run(("remove", pod.id), lambda: self._remove(pod))

    async def _remove(self, pod: Pod) -> None:
        await self.joined.run(("stop", pod.id), lambda: self._stop(pod))
        for container in list(pod.containers.values()):
            await containers.remove(self, container)
        async with pod.lock:
            pod.record.state = REMOVING
            await asyncio.to_thread(write_record, f"{pod.directory}/pod.json", pod.record)
            await asyncio.to_thread(self._forget_files, pod.directory)
            self.pods.pop(pod.id, None)
        self.changed(pod, "deleted")

    def _forget_files(self, directory: str) -> None:
        """The record goes first: what has none is debris."""
        for name in ("pod.json", "container.json"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{directory}/{name}")
        _remove(directory)

    # --- ends ---------------------------------------------------------------------------------------------------------

    def _watch(self, pod: Pod) -> None:
        """Has the loop read what the supervisor tells."""
        if pod.supervisor is None:
            return
        try:
            pod.watched = pod.supervisor.fileno()
        except PyrunError:
            self._lost(pod)
            return
        asyncio.get_running_loop().add_reader(pod.watched, self._read, pod)

    def _unwatch(self, pod: Pod) -> None:
        if pod.watched >= 0:
            asyncio.get_running_loop().remove_reader(pod.watched)
            pod.watched = -1

    def _read(self, pod: Pod) -> None:
        try:
            while pod.supervisor is not None and (known := pod.supervisor.read_event()) is not None:
                container = self.containers.get(known.ctr)
                if container is not None and container.alive:
                    containers.ended(self, container, known)
        except Gone:
            self._unwatch(pod)
            if pod.supervisor is None or pod.stopping:
                return
            try:
                pod.supervisor.hello()  # we were too slow for it
                self._watch(pod)
            except PyrunError:
                self._lost(pod)

    def _lost(self, pod: Pod) -> None:
        """Its supervisor was killed: what ran in it has nobody to hear it any more, so the pod is not ready."""
        self._unwatch(pod)
        if pod.stopping or pod.supervisor is None:
            return
        self.warn(f"the supervisor of pod {pod.id[:13]} is gone: the pod is stopped")
        pod.supervisor = None
        asyncio.get_running_loop().create_task(self.stop(pod.id))

    # --- containers ---------------------------------------------------------------------------------------------------

    async def create(self, pod_id: str, config: Any, pod_config: Any) -> str:
        pod = self.pod(pod_id)
        key = ("container", pod.id, container_key(config))
        return await self.joined.run(key, lambda: self._create(pod, config))

    async def _create(self, pod: Pod, config: Any) -> str:
        if not pod.ready:
            raise FailedPrecondition(f"pod {pod.id[:13]} is not ready", hint="it has been stopped; make a new one")
        for c in pod.containers.values():
            if container_key(c.config) == container_key(config):
                if c.record.state == CREATED and c.record.config == config.SerializeToString(deterministic=True):
                    return c.id
                raise AlreadyExists(
                    f"container {config.metadata.name}, attempt {config.metadata.attempt}, is in this pod",
                    hint=f"remove {c.id[:13]} first, or count the attempt up",
                )
        data = config.SerializeToString(deterministic=True)
        container = Container(ContainerRecord(new_id(), pod.id, data, created=time.time_ns()), pod)
        pod.containers[container.id] = self.containers[container.id] = container
        async with container.lock:
            try:
                await asyncio.to_thread(containers.make, self, container)
            except BaseException:
                pod.containers.pop(container.id)
                self.containers.pop(container.id)
                await asyncio.to_thread(containers.unmake, self, container)
                raise
        if pod.stopping:  # it came in between
            await containers.stop(self, container, 0)
        self.changed(container, "created")
        return container.id

    def _forget(self, container: Container) -> None:
        container.pod.containers.pop(container.id, None)
        self.containers.pop(container.id, None)

    # --- a restart ----------------------------------------------------------------------------------------------------

    async def recover(self) -> None:
        """What an earlier daemon has left: pods that are ready go on, what was not promised is taken away."""
        await asyncio.to_thread(self._prepare)
        for name in await asyncio.to_thread(names_in, f"{self.root}/pods"):
            directory = f"{self.root}/pods/{name}"
            record = await asyncio.to_thread(read_record, PodRecord, f"{directory}/pod.json")
            if record is None:
                record = PodRecord(name, b"", REMOVING)
            pod = Pod(record, self.root, self.state)
            if record.state in (MAKING, REMOVING):
                for below in await asyncio.to_thread(names_in, directory):
                    stray = Container(ContainerRecord(below, name, b""), pod)
                    await asyncio.to_thread(containers.unmake, self, stray)
                await asyncio.to_thread(self._unmake, pod)
                continue
            self.pods[name] = pod
            await self._recover_pod(pod)
        live = {pod.id for pod in self.pods.values() if not pod.record.released}
        await asyncio.to_thread(self._sweep, live)

    def _prepare(self) -> None:
        os.makedirs(f"{self.root}/pods", 0o700, exist_ok=True)
        os.makedirs(f"{self.state}/containers", 0o700, exist_ok=True)
        prepare_state(f"{self.state}/pods")

    def _sweep(self, live: set[str]) -> None:
        for name in names_in(f"{self.state}/pods"):
            if name not in live:
                with contextlib.suppress(PyrunError):
                    end_sandbox(f"{self.state}/pods/{name}")
        self.network.gc(live)

    async def _recover_pod(self, pod: Pod) -> None:
        found = await asyncio.to_thread(self._reload, pod)
        for container in found:
            pod.containers[container.id] = self.containers[container.id] = container
        if pod.record.released:
            return
        if pod.supervisor is None:
            pod.not_ready()
            for container in found:
                if container.alive:
                    await containers.lost(self, container)
            await self._stop(pod)
            return
        self._watch(pod)
        if pod.record.state == NOTREADY:  # a stop was cut short
            await self._stop(pod)

    def _reload(self, pod: Pod) -> list[Container]:
        found = []
        for name in names_in(pod.directory):
            record = read_record(ContainerRecord, f"{pod.directory}/{name}/container.json")
            container = Container(record or ContainerRecord(name, pod.id, b""), pod)
            if record is None or record.state in (MAKING, REMOVING):
                containers.unmake(self, container)
            else:
                found.append(container)
        pod.ips = [str(ip) for ip in pod.record.network.get("ips", [])]
        if pod.record.released or pod.record.boot_id != boot_id():
            return found
        try:
            pod.sandbox = load_sandbox(pod.run_directory, self.facts)
            pod.supervisor = Supervisor.connect(pod.run_directory)
            known = {one.ctr: one for one in pod.supervisor.hello()}
        except PyrunError as error:
            self.warn(f"pod {pod.id[:13]} did not outlive the daemon: {error}")
            pod.supervisor = None
            return found
        holder = known.get(PIDS)
        if holder is not None and holder.state == LIVE:
            pod.sandbox.pid = f"/proc/{holder.pid}/ns/pid"
        for container in found:
            if container.alive and container.id not in known:
                container.record.state = UNKNOWN
        return found


def _remove(directory: str) -> None:
    """With all that is in it; no error where it is not there."""
    try:
        remove_tree(directory)
    except OSError as e:
        hint = "is something mounted in it, or a file immutable (lsattr)?"
        raise PyrunError(f"{directory}: {reason(e)}", hint=hint) from None


def _end_holder(supervisor: Supervisor) -> None:
    """Process 1 of a shared PID namespace, which ends with nobody else."""
    for known in supervisor.hello():
        if known.ctr != PIDS:
            continue
        try:
            pidfd = os.pidfd_open(known.pid)
        except ProcessLookupError:
            pidfd = -1
        if pidfd >= 0:
            if known.state == LIVE and start_time(known.pid) == known.start:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                select.select([pidfd], [], [], HOLDER_S)
            os.close(pidfd)
        _drop(supervisor)


def _drop(supervisor: Supervisor) -> None:
    """The supervisor may need a moment to hear of its end."""
    last = time.monotonic() + HOLDER_S
    while True:
        try:
            return supervisor.drop(PIDS)
        except PyrunError:
            if time.monotonic() > last:
                raise
            time.sleep(0.002)


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
