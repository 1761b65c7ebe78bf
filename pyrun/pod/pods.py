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
from typing import TYPE_CHECKING, Any

from .. import cri_api as v1
from ..ending import beside
from ..errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, PyrunError
from ..runtime.store import boot_id, start_time
from . import container as containers
from .calls import Gone
from .making import make, unmake
from .messages import LIVE
from .network import PodNet
from .pod import Container, Pod, container_key, pod_key
from .points import reached
from .records import (
    CREATED,
    MAKING,
    NOTREADY,
    READY,
    REMOVING,
    ContainerRecord,
    PodRecord,
    forget_files,
    make_directory,
    new_id,
    remove_directory,
)
from .sandbox import complete_sandbox, end_sandbox, make_sandbox, make_scope
from .state import NodeState
from .supervisor import PIDS, Supervisor, drop
from .undo import undoing

if TYPE_CHECKING:
    from .sandbox import Sandbox

HOLDER_S = 5.0


class Pods(NodeState):
    """What is done to pods, and how containers come into them."""

    # --- pods ---------------------------------------------------------------------------------------------------------

    async def run(self, config: Any, handler: str) -> str:
        """Makes a pod; the id of the one that is there when it is asked for again."""
        data = config.SerializeToString(deterministic=True)
        return await self.joined.run(("pod", pod_key(config), handler, data), lambda: self._run(config, handler))

    async def _run(self, config: Any, handler: str) -> str:
        data = config.SerializeToString(deterministic=True)
        for pod in self.pods.values():
            if pod_key(pod.config) == pod_key(config):
                if pod.ready and pod.record.config == data and pod.record.handler == handler:
                    return pod.id
                raise AlreadyExists(
                    f"pod {config.metadata.name} in {config.metadata.namespace} is there",
                    hint=f"remove {pod.id[:13]} first, or count the attempt up",
                )
        peer = self.peers.get(handler)
        if peer is not None:
            peer.check_pod(config)
        runtime = peer.program if peer is not None else ""
        record = PodRecord(new_id(), data, handler, runtime, created=time.time_ns(), boot_id=boot_id())
        pod = Pod(record, self.root, self.state)
        self.keep_pod(pod)
        async with pod.lock:
            try:
                await asyncio.to_thread(self._make_pod, pod)
            except BaseException:
                await self._undo(pod)
                raise
        self._watch(pod)
        self.changed(pod, "created")
        self.changed(pod, "started")
        return pod.id

    async def _undo(self, pod: Pod) -> None:
        """One that could not be made. Where something of it stays, it is shown as not ready, for somebody to remove."""
        try:
            await asyncio.to_thread(self._unmake, pod)
            self.forget_pod(pod)
        except PyrunError as error:
            self.warn(f"pod {pod.id[:13]} could not be made, and something of it stays: {error}")
            pod.record.state = NOTREADY
            await asyncio.to_thread(self.save_if_possible, pod)

    def _make_pod(self, pod: Pod) -> None:
        reached("run:begin")
        make_directory(pod.directory)
        pod.save()
        reached("run:record")
        driver = self.settings.cgroup_driver
        pod.sandbox = make_sandbox(pod.run_directory, pod.id, pod.config, self.facts, driver=driver)
        reached("run:sandbox")
        if pod.sandbox.net:
            result = self.network.add(PodNet.of(pod.id, pod.config, pod.sandbox.net))
            pod.ips = list(result.ips)
            reached("run:network")
            complete_sandbox(pod.sandbox, pod.config, result.dns, self.facts)
        reached("run:sandbox complete")
        self._launch(pod)
        reached("run:supervisor")
        if pod.config.linux.security_context.namespace_options.pid == v1.POD:
            assert pod.supervisor is not None
            with contextlib.closing(pod.supervisor.hold_pids(self.facts, pod.sandbox.user)) as holder:
                pod.sandbox.pid = f"/proc/{holder.pid}/ns/pid"
            reached("run:pids held")
        pod.record.network = {"ips": pod.ips}
        pod.record.state = READY
        pod.save()
        reached("run:end")

    def _launch(self, pod: Pod) -> None:
        assert pod.sandbox is not None
        sandbox, path = pod.sandbox, pod.sandbox.cgroup
        if sandbox.slice:
            around = lambda pid: _scope(sandbox, pid)  # noqa: E731
            pod.supervisor = Supervisor.launch(pod.run_directory, pod.id, around=around)
            return
        cgroup = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if path else None
        try:
            pod.supervisor = Supervisor.launch(pod.run_directory, pod.id, cgroup=cgroup)
        finally:
            if cgroup is not None:
                os.close(cgroup)

    def _unmake(self, pod: Pod) -> None:
        """Nothing is left of it, but what its containers say of themselves."""
        self._release(pod)
        forget_files(pod.directory)

    def _release(self, pod: Pod) -> None:
        """All that a pod has of the node: also of one that is half made. PyrunError when something stays; then all
        else has been tried."""
        if pod.supervisor is not None:
            with contextlib.suppress(PyrunError):
                _end_holder(pod.supervisor)
                reached("stopp:holder gone")
                pod.supervisor.end()
            pod.supervisor.close()
            pod.supervisor = None
        reached("stopp:supervisor gone")
        netns = (pod.sandbox.net if pod.sandbox else None) or ""
        pod.ips = []  # from here on they may be another pod's, whatever goes wrong below
        with undoing() as undo:
            undo(self.network.remove, PodNet(pod.id, netns=netns))
            reached("stopp:network gone")
            undo(end_sandbox, pod.run_directory)
            reached("stopp:sandbox gone")
            undo(remove_directory, pod.run_directory)  # what the supervisor had there
        pod.sandbox = None

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
            reached("stopp:begin")
            await asyncio.to_thread(self.save_if_possible, pod)
            reached("stopp:record")
            await self._end_containers(pod)
            reached("stopp:containers ended")
            self._unwatch(pod)
            await asyncio.to_thread(self._release, pod)
            pod.record.released = True
            pod.record.state = NOTREADY
            await asyncio.to_thread(self.save_if_possible, pod)
            reached("stopp:end")
        self.changed(pod, "stopped")

    async def _end_containers(self, pod: Pod) -> None:
        """Also those that are being made: that is given up."""
        for container in list(pod.containers.values()):
            if container.cancel >= 0:
                os.eventfd_write(container.cancel, 1)
            if container.record.state == MAKING:
                async with container.lock:
                    pass
        alive = [c for c in pod.containers.values() if c.alive]
        end = containers.stop if pod.supervisor is not None else containers.lost
        words = (0,) if pod.supervisor is not None else ()
        results = await asyncio.gather(*(end(self, c, *words) for c in alive), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        for c in list(pod.containers.values()):
            await containers.settled(c)  # its cgroup is in the pod's, its supervisor is asked

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
        await asyncio.gather(*pod.clearing)
        async with pod.lock:
            pod.record.state = REMOVING
            await asyncio.to_thread(self.save_if_possible, pod)
            reached("rmp:record")
            await asyncio.to_thread(forget_files, pod.directory)
            self.forget_pod(pod)
            reached("rmp:end")
        self.changed(pod, "deleted")

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
        self.go_on(self.stop(pod.id))

    # --- containers ---------------------------------------------------------------------------------------------------

    async def create(self, pod_id: str, config: Any, pod_config: Any) -> str:
        pod = self.pod(pod_id)
        key = ("container", pod.id, container_key(config), config.SerializeToString(deterministic=True))
        return await self.joined.run(key, lambda: self._create(pod, config))

    async def _create(self, pod: Pod, config: Any) -> str:
        if not pod.ready:
            raise FailedPrecondition(f"pod {pod.id[:13]} is not ready", hint="it has been stopped; make a new one")
        privileged = config.linux.security_context.privileged
        if privileged and not pod.config.linux.security_context.privileged:
            raise InvalidArgument(
                f"linux.security_context.privileged: pod {pod.id[:13]} is not",
                hint="a pod that is to have a privileged container is made with the same field set",
            )
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
            container.cancel = os.eventfd(0, os.EFD_CLOEXEC)
            try:
                await beside(make, self, container)  # sources of mounts are others' files
            except BaseException as error:
                try:
                    await asyncio.to_thread(unmake, self, container)
                except PyrunError as stays:  # it goes with its pod, or when a daemon starts
                    self.warn(f"container {container.id[:13]} could not be made, and something of it stays: {stays}")
                self.forget(container)
                if pod.stopping and isinstance(error, PyrunError):  # that is why, whatever step it was interrupted at
                    raise FailedPrecondition(f"pod {pod.id[:13]} is being stopped: its container is given up") from None
                raise
            finally:
                os.close(container.cancel)
                container.cancel = -1
        if pod.stopping:  # it came in between
            await containers.stop(self, container, 0)
        self.changed(container, "created")
        return container.id


def _scope(sandbox: Sandbox, pid: int) -> None:
    reached("run:supervisor waits")
    make_scope(sandbox, pid)
    reached("run:scope")


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
        drop(supervisor, PIDS)
