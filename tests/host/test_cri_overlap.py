"""A kubelet at its worst: it repeats itself, gives up at its deadline, and asks for what contradicts what it has just
asked for. Each call gets a code that tells why, and nothing is left that nobody knows of."""

from __future__ import annotations

import asyncio
import collections
import json
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyrun import cri_api as v1
from pyrun.errors import FailedPrecondition, PyrunError
from pyrun.pod import container as life
from pyrun.pod.pod import Container
from pyrun.pod.sandbox import end_sandbox
from pyrun.pod.state import NodeState
from tests.support.cri.node import RPCS, Node, a_node

STORM_S = 5.0
DEADLINES_S = (0.003, 0.01, 0.03, 0.1, 1.0, 20.0)
SCRIPTS = ("exit 3", "sleep 0.05", "trap 'exit 7' TERM; while :; do echo x; sleep 0.02; done", "yes | head -c 1000000")
COMMANDS = (["true"], ["sh", "-c", "yes | head -c 20000000"], ["sh", "-c", "sleep 3 & yes"], ["sh", "-c", "kill -9 1"])


@pytest.fixture
def node(tmp_path: Path, busybox_rootfs: Path) -> Iterator[Node]:
    """With a device whose hook goes on until it is told to end."""
    hook = {"hookName": "createRuntime", "path": "/bin/sh", "args": ["sh", "-c", f"touch {tmp_path}/hook; sleep 1000"]}
    devices = [{"name": "slow", "containerEdits": {"hooks": [hook]}}]
    (tmp_path / "cdi").mkdir()
    spec = {"cdiVersion": "1.0.0", "kind": "vendor.test/device", "devices": devices}
    (tmp_path / "cdi/vendor.json").write_text(json.dumps(spec))
    with a_node(tmp_path / "node", busybox_rootfs) as made:
        made.configure(f'cgroup_driver = "cgroupfs"\ncdi_dirs = ["{tmp_path}/cdi"]\n')
        yield made


def wait_for(path: Path) -> None:
    last = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < last, path
        time.sleep(0.005)


def test_removed_while_its_container_is_made(node: Node, tmp_path: Path) -> None:
    """Both who ask for the container are told that its pod goes, not at which step that was seen."""
    node.fork()
    pod = node.run_pod()
    with ThreadPoolExecutor(2) as pool:
        words: dict[str, Any] = {"CDI_devices": [{"name": "vendor.test/device=slow"}]}
        asked = [pool.submit(node.create, pod, "c", **words) for _ in range(2)]
        wait_for(tmp_path / "hook")
        node.call("RemovePodSandbox", pod_sandbox_id=pod)
        for one in asked:
            with pytest.raises(FailedPrecondition, match="is being stopped: its container is given up"):
                one.result()
    assert list(node.call("ListPodSandbox").items) == []
    node.check()


def test_stopped_while_a_container_ends_by_itself(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the container has is in what the pod has, so the pod waits for it to be cleared."""
    clean, told, early = life._clean, tmp_path / "ended", tmp_path / "early"

    def slow(node_state: NodeState, c: Container) -> None:
        told.touch()
        last = time.monotonic() + 1
        while c.pod.supervisor is not None and time.monotonic() < last:
            time.sleep(0.005)
        if c.pod.supervisor is None:
            early.touch()
        clean(node_state, c)

    monkeypatch.setattr(life, "_clean", slow)
    node.fork()
    pod = node.run_pod()
    node.run(pod, script="exit 3")
    wait_for(told)
    node.call("StopPodSandbox", pod_sandbox_id=pod)
    assert not early.exists()
    (c,) = node.call("ListContainers").containers
    assert node.status(c.id).exit_code == 3


def test_events_of_a_life_that_is_over_at_once(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """They come in order, each with what was so then, also where a container has ended before its start has been
    answered, and is removed before what it has left is gone; and who could not be started has not been."""
    release, clean = life._release, life._clean

    def until(true: Callable[[], bool]) -> None:
        last = time.monotonic() + 0.5
        while not true() and time.monotonic() < last:
            time.sleep(0.005)

    def late(node_state: NodeState, c: Container) -> PyrunError | None:
        error = release(node_state, c)
        until(lambda: c.end is not None)
        return error

    def slow(node_state: NodeState, c: Container) -> None:
        until(lambda: c.id not in node_state.containers)
        clean(node_state, c)

    monkeypatch.setattr(life, "_release", late)
    monkeypatch.setattr(life, "_clean", slow)
    ids: list[str] = []

    def live() -> int:
        ids.append(node.run_pod())
        ids.append(node.run(ids[0], script="exit 3"))
        node.wait_state(ids[1], v1.CONTAINER_EXITED)
        node.call("RemoveContainer", container_id=ids[1])
        ids.append(node.create(ids[0], "none", command=["/no/such"]))
        with pytest.raises(PyrunError):
            node.call("StartContainer", container_id=ids[2])
        node.call("RemovePodSandbox", pod_sandbox_id=ids[0])
        return 11

    node.fork()
    events = node.stream("GetContainerEvents", live)
    pod, one, none = ids
    assert [(e.container_id, v1.ContainerEventType.Name(e.container_event_type).split("_")[1]) for e in events] == [
        *((pod, "CREATED"), (pod, "STARTED")),
        *((one, "CREATED"), (one, "STARTED"), (one, "STOPPED"), (one, "DELETED")),
        *((none, "CREATED"), (none, "STOPPED"), (pod, "STOPPED"), (none, "DELETED"), (pod, "DELETED")),
    ]
    states = [[v1.ContainerState.Name(c.state).split("_")[1] for c in e.containers_statuses] for e in events]
    assert states == [[], [], ["CREATED"], ["RUNNING"], ["EXITED"], [], ["CREATED"], ["EXITED"], ["EXITED"], [], []]
    assert [e.containers_statuses[0].exit_code for e in (events[4], events[7])] == [3, 128]
    ready = [e.pod_sandbox_status.state == v1.SANDBOX_READY for e in events]
    assert all(ready[:7]) and not any(ready[8:]) and {e.pod_sandbox_status.id for e in events} == {pod}
    assert [e.created_at for e in events] == sorted(e.created_at for e in events)


def test_a_stop_that_fails_says_no_address(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left of the pod may stay for long, and its address is given to another meanwhile; also where the daemon
    was killed at that point."""
    broken = tmp_path / "broken"

    def fail(directory: str) -> None:
        if broken.exists():
            raise PyrunError("it is busy")
        end_sandbox(directory)

    monkeypatch.setattr("pyrun.pod.pods.end_sandbox", fail)
    broken.touch()
    node.fork()
    pod = node.run_pod()
    assert node.call("PodSandboxStatus", pod_sandbox_id=pod).status.network.ip
    with pytest.raises(PyrunError, match="it is busy"):
        node.call("StopPodSandbox", pod_sandbox_id=pod)
    for _ in range(2):
        status = node.call("PodSandboxStatus", pod_sandbox_id=pod).status
        assert status.state == v1.SANDBOX_NOTREADY and not status.network.ip
        node.kill()
        node.fork()
    broken.unlink()
    node.call("StopPodSandbox", pod_sandbox_id=pod)
    node.check()


class Kubelet:
    """One of several that know nothing of each other. codes: what it was told, and about what."""

    def __init__(self, node: Node, seed: int) -> None:
        self.node, self.random = node, random.Random(seed)
        self.channel = Channel(path=str(node.socket))
        self.codes: collections.Counter[tuple[str, str, str]] = collections.Counter()

    async def call(self, rpc: str, deadline_s: float, **fields: Any) -> Any:
        row = RPCS[rpc]
        request = json_format.ParseDict(fields, row.request())
        try:
            method: Any = UnaryUnaryMethod(self.channel, row.path, row.request, row.response)
            return await method(request, timeout=deadline_s)
        except GRPCError as error:
            self.codes[rpc, error.status.name, error.message or ""] += 1
        except TimeoutError:
            self.codes[rpc, "TimeoutError", ""] += 1

    async def work(self, until: float) -> None:
        while time.monotonic() < until:
            pods = (await self.call("ListPodSandbox", 60)).items
            all_containers = (await self.call("ListContainers", 60)).containers
            pod = self.random.choice(pods).id if pods else "x"
            container = self.random.choice(all_containers).id if all_containers else "x"
            await self.one(pod, container, self.random.choice(DEADLINES_S))
        self.channel.close()

    async def one(self, pod: str, c: str, deadline_s: float) -> None:
        pick, name = self.random.choice, f"p{self.random.randrange(3)}"
        config = self.node.pod_config(name)
        what = self.random.random()
        if what < 0.2:
            await self.call("RunPodSandbox", deadline_s, config=config)
        elif what < 0.5:
            given = self.node.container_config(f"c{self.random.randrange(3)}", pick(SCRIPTS))
            given["metadata"]["attempt"] = self.random.randrange(3)
            words = {"pod_sandbox_id": pod, "config": given, "sandbox_config": config}
            calls = [self.call("CreateContainer", wait_s, **words) for wait_s in (deadline_s, 5.0)]
            for answer in await asyncio.gather(*calls):
                if answer is not None:
                    await self.call("StartContainer", deadline_s, container_id=answer.container_id)
        elif what < 0.6:
            await self.call("StopContainer", deadline_s, container_id=c, timeout=pick((0, 1)))
        elif what < 0.7:
            await self.call("RemoveContainer", deadline_s, container_id=c)
        elif what < 0.8:
            await self.call("ExecSync", deadline_s, container_id=c, cmd=pick(COMMANDS), timeout=1)
        elif what < 0.9:
            await self.call("ReopenContainerLog", deadline_s, container_id=c)
        else:
            await self.call(pick(("StopPodSandbox", "RemovePodSandbox")), deadline_s, pod_sandbox_id=pod)


def test_anything_at_any_time(node: Node) -> None:
    node.fork()

    async def work() -> list[Kubelet]:
        kubelets, until = [Kubelet(node, seed) for seed in range(5)], time.monotonic() + STORM_S
        await asyncio.gather(*(kubelet.work(until) for kubelet in kubelets))
        return kubelets

    told = [key for kubelet in asyncio.run(work()) for key in kubelet.codes]
    bad = (Status.UNKNOWN.name, Status.INTERNAL.name)
    assert [key for key in told if key[1] in bad and "not running" not in key[2]] == []
    assert "Traceback" not in node.said.read_text()
    node.check()
    addresses = [
        node.call("PodSandboxStatus", pod_sandbox_id=pod.id).status.network.ip
        for pod in node.call("ListPodSandbox").items
        if pod.state == v1.SANDBOX_READY
    ]
    assert len(addresses) == len(set(addresses))
