"""This node's pods, as its container runtime has them, as Pod objects with a status: for a node without an API server.

The runtime's events tell of each change with the pod's state as of then; all are listed at the start, when the events
have been cut off, and from time to time. A pod is ready while all its containers run; what ended well and has not begun
again was an init container. Labels are the sandbox's, ports those that a kubelet writes into a container's annotation.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import threading
from collections.abc import Callable
from typing import Any

from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.exceptions import GRPCError, StreamTerminatedError

from ... import cri_api as v1
from .store import Fault, Key, Store, Told, key_of

SOURCE = "pods of the runtime"
PORTS = "io.kubernetes.container.ports"  # the kubelet's annotation of a container
CALL_S = 10.0
AGAIN_S = (1.0, 10.0)  # to a runtime that does not answer
LIST_S = 15.0  # also without an event
RPCS = v1.SERVICES["RuntimeService"]


class Pods:
    """Follows the CRI at a unix socket's path. node: the name in spec.nodeName. node_ips: what a pod has that shares
    the node's network. told: a line for the log."""

    def __init__(
        self,
        socket: str,
        store: Store,
        node: str,
        node_ips: tuple[str, ...] = (),
        told: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.socket = socket
        self._node_ips = node_ips
        self.error: str | None = None
        self._store = store
        self._node = node
        self._told = told
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="pods", daemon=True)
        self._by_sandbox: dict[str, dict[str, Any]] = {}
        store.expect(SOURCE)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(lambda: self._task and self._task.cancel())
            self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._task = self._loop.create_task(self._follow())
        try:
            with contextlib.suppress(asyncio.CancelledError):
                self._loop.run_until_complete(self._task)
        finally:
            self._loop.close()

    async def _follow(self) -> None:
        wait = AGAIN_S[0]
        while True:
            channel = Channel(path=self.socket)
            try:
                await self._serve(channel)
                wait = AGAIN_S[0]
            except (OSError, GRPCError, StreamTerminatedError, TimeoutError, AttributeError) as error:
                # AttributeError: grpclib's, of a connection that was lost before it was used
                self._failed(getattr(error, "strerror", None) or getattr(error, "message", None) or str(error))
            finally:
                channel.close()
            await asyncio.sleep(wait * random.uniform(0.5, 1.5))
            wait = min(wait * 2, AGAIN_S[1])

    def _failed(self, text: str) -> None:
        text = f"the container runtime at {self.socket}: {text or 'it does not answer'}"
        if text != self.error:
            self.error = text
            self._told(f"{text}; its pods stay as they were")
            self._store.set_faults(SOURCE, [Fault(self.socket, text)])

    async def _serve(self, channel: Channel) -> None:
        """Until the events end. They are asked for before the list, so that no change falls between."""
        rpc = RPCS["GetContainerEvents"]
        method: Any = UnaryStreamMethod(channel, rpc.path, rpc.request, rpc.response)
        async with method.open() as stream:
            await stream.send_message(rpc.request(), end=True)
            await self._list(channel)
            while True:
                try:
                    event = await asyncio.wait_for(stream.recv_message(), LIST_S)
                except TimeoutError:
                    await self._list(channel)
                    continue
                if event is None:
                    return
                await self._take(channel, event.pod_sandbox_status.id)

    async def _call(self, channel: Channel, name: str, request: Any) -> Any:
        rpc = RPCS[name]
        method: Any = UnaryUnaryMethod(channel, rpc.path, rpc.request, rpc.response)
        return await method(request, timeout=CALL_S)

    async def _list(self, channel: Channel) -> None:
        ready = v1.PodSandboxStateValue(state=v1.SANDBOX_READY)
        answer = await self._call(
            channel, "ListPodSandbox", v1.ListPodSandboxRequest(filter=v1.PodSandboxFilter(state=ready))
        )
        found = {}
        for item in answer.items:
            pod = await self._ask(channel, item.id)
            if pod is not None:
                found[item.id] = pod
        self._by_sandbox = found
        self._publish()
        if self.error is not None:
            self.error = None
            self._told(f"the container runtime at {self.socket} answers")

    async def _take(self, channel: Channel, id: str) -> None:
        """Asks of this pod as it is now; a slow reader of many events so does not go back in time."""
        pod = await self._ask(channel, id)
        if pod is None:
            self._by_sandbox.pop(id, None)
        else:
            self._by_sandbox[id] = pod
        self._publish()

    async def _ask(self, channel: Channel, id: str) -> dict[str, Any] | None:
        """None where it is gone or stopped."""
        try:
            answer = await self._call(channel, "PodSandboxStatus", v1.PodSandboxStatusRequest(pod_sandbox_id=id))
        except GRPCError as error:
            if error.status.name == "NOT_FOUND":
                return None
            raise
        if answer.status.state != v1.SANDBOX_READY:
            return None
        containers = list(answer.containers_statuses)
        if not containers:  # a runtime that does not tell them here
            by = v1.ListContainersRequest(filter=v1.ContainerFilter(pod_sandbox_id=id))
            containers = list((await self._call(channel, "ListContainers", by)).containers)
        return pod_object(answer.status, containers, self._node, self._node_ips)

    def _publish(self) -> None:
        """Of two sandboxes of one pod the later one."""
        objects: dict[Key, Any] = {}
        for pod in sorted(self._by_sandbox.values(), key=lambda one: int(one["metadata"]["generation"])):
            objects[key_of(pod)] = Told(pod, SOURCE)
        self._store.replace(SOURCE, objects)


def pod_object(status: Any, containers: list[Any], node: str, node_ips: tuple[str, ...] = ()) -> dict[str, Any]:
    """A Pod of a PodSandboxStatus and its containers (ContainerStatus or Container). generation is the attempt."""
    of_node = status.linux.namespaces.options.network == v1.NODE
    ips = (
        list(node_ips)
        if of_node
        else [ip for ip in (status.network.ip, *(one.ip for one in status.network.additional_ips)) if ip]
    )
    latest: dict[str, Any] = {}
    for one in containers:
        old = latest.get(one.metadata.name)
        if old is None or old.metadata.attempt < one.metadata.attempt:
            latest[one.metadata.name] = one
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": status.metadata.name,
            "namespace": status.metadata.namespace or "default",
            "uid": status.metadata.uid,
            "generation": status.metadata.attempt,
            "labels": dict(status.labels),
        },
        "spec": {
            "nodeName": node,
            "hostNetwork": of_node,
            "containers": [{"name": name, "ports": _ports(one)} for name, one in sorted(latest.items())],
        },
        "status": {
            "phase": "Running",
            "podIP": ips[0] if ips else "",
            "podIPs": [{"ip": ip} for ip in ips],
            "conditions": [{"type": "Ready", "status": "True" if _all_run(list(latest.values())) else "False"}],
        },
    }


def _all_run(containers: list[Any]) -> bool:
    wanted = [one for one in containers if not _ended_well(one)]
    return bool(wanted) and all(one.state == v1.CONTAINER_RUNNING for one in wanted)


def _ended_well(one: Any) -> bool:
    return one.state == v1.CONTAINER_EXITED and getattr(one, "exit_code", 1) == 0


def _ports(one: Any) -> list[Any]:
    try:
        found = json.loads(one.annotations.get(PORTS, "[]"))
    except ValueError:
        return []
    return found if isinstance(found, list) else []
