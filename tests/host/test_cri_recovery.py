"""The daemon is killed at every point of every change, and the next one makes the best of it: what was promised is
there, what was not is gone, nothing is there twice, and the same request leads to where the first one was to.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyrun import cri_api as v1
from pyrun.errors import Unavailable
from tests.support.cri.node import BUSYBOX, Node, a_node

STUBBORN = "trap '' TERM; echo started; while :; do sleep 0.02; done"


@pytest.fixture
def node(tmp_path: Path, busybox_rootfs: Path) -> Iterator[Node]:
    with a_node(tmp_path, busybox_rootfs) as found:
        yield found


class Change:
    """One RPC that changes something. ready: makes what it needs and gives its request; after: looks at what it has led
    to, when it has been made again. prefixes: of the points that are its own."""

    rpc = ""
    prefixes: tuple[str, ...] = ()

    def ready(self, node: Node) -> dict[str, Any]:
        return {}

    def after(self, node: Node) -> None:
        raise NotImplementedError


class RunPod(Change):
    rpc, prefixes = "RunPodSandbox", ("run:",)

    def ready(self, node: Node) -> dict[str, Any]:
        options = {"security_context": {"namespace_options": {"pid": "POD"}}}
        return {"config": node.pod_config(linux=options)}

    def after(self, node: Node) -> None:
        (pod,) = node.call("ListPodSandbox").items
        assert pod.state == v1.SANDBOX_READY
        assert node.call("PodSandboxStatus", pod_sandbox_id=pod.id).status.network.ip
        node.run(pod.id, script="echo one; exit 3")
        (c,) = node.call("ListContainers").containers
        assert node.wait_state(c.id, v1.CONTAINER_EXITED).exit_code == 3


class Create(Change):
    rpc, prefixes = "CreateContainer", ("create:",)

    def ready(self, node: Node) -> dict[str, Any]:
        pod = node.run_pod()
        other = node.container_config(
            mounts=[{"container_path": "/image", "readonly": True, "image": {"image": BUSYBOX}}]
        )
        return {"pod_sandbox_id": pod, "config": other, "sandbox_config": node.pod_config()}

    def after(self, node: Node) -> None:
        (c,) = node.call("ListContainers").containers
        node.call("StartContainer", container_id=c.id)
        wait_for(lambda: node.log() == ["started"])
        (pod,) = node.call("ListPodSandbox").items
        assert pod.state == v1.SANDBOX_READY


class Start(Change):
    rpc, prefixes = "StartContainer", ("start:",)

    def ready(self, node: Node) -> dict[str, Any]:
        return {"container_id": node.create(node.run_pod())}

    def after(self, node: Node) -> None:
        (c,) = node.call("ListContainers").containers
        assert c.state == v1.CONTAINER_RUNNING
        wait_for(lambda: node.log() == ["started"])


class Stop(Change):
    rpc, prefixes = "StopContainer", ("stop:", "end:")
    grace, script, codes = 5, "", (7,)

    def ready(self, node: Node) -> dict[str, Any]:
        words = {"script": self.script} if self.script else {}
        id = node.run(node.run_pod(), **words)
        wait_for(lambda: node.log() == ["started"])
        return {"container_id": id, "timeout": self.grace}

    def after(self, node: Node) -> None:
        (c,) = node.call("ListContainers").containers
        status = node.wait_state(c.id, v1.CONTAINER_EXITED)
        assert status.exit_code in self.codes and status.reason == "Error"
        assert node.log() == (["started", "bye"] if status.exit_code == 7 else ["started"])


class Kill(Stop):
    grace, script, codes = 0, STUBBORN, (137,)


class Remove(Change):
    rpc, prefixes = "RemoveContainer", ("remove:",)

    def ready(self, node: Node) -> dict[str, Any]:
        return {"container_id": node.run(node.run_pod(), script="exit 0")}

    def after(self, node: Node) -> None:
        assert not node.call("ListContainers").containers


class RemoveRunning(Remove):
    def ready(self, node: Node) -> dict[str, Any]:
        return {"container_id": node.run(node.run_pod(), script=STUBBORN)}


class StopPod(Change):
    rpc, prefixes = "StopPodSandbox", ("stopp:",)

    def ready(self, node: Node) -> dict[str, Any]:
        options = {"security_context": {"namespace_options": {"pid": "POD"}}}
        pod = node.run_pod(linux=options)
        node.run(pod, script=STUBBORN)
        return {"pod_sandbox_id": pod}

    def after(self, node: Node) -> None:
        (pod,) = node.call("ListPodSandbox").items
        assert pod.state == v1.SANDBOX_NOTREADY
        (c,) = node.call("ListContainers").containers
        assert node.status(c.id).exit_code == 137


class RemovePod(Change):
    rpc, prefixes = "RemovePodSandbox", ("rmp:", "stopp:", "remove:", "stop:", "end:")

    def ready(self, node: Node) -> dict[str, Any]:
        pod = node.run_pod()
        node.run(pod, script=STUBBORN)
        return {"pod_sandbox_id": pod}

    def after(self, node: Node) -> None:
        assert not node.call("ListPodSandbox").items
        assert not node.call("ListContainers").containers


CHANGES = (RunPod, Create, Start, Stop, Kill, Remove, RemoveRunning, StopPod, RemovePod)


def wait_for(true: Callable[[], bool], patience_s: float = 5.0) -> None:
    last = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < last
        time.sleep(0.01)


def clear(node: Node) -> None:
    node.clear()
    for log in node.logs.glob("*/*"):
        log.unlink()


def points_of(node: Node, change: Change, path: Path) -> list[str]:
    """Those that the change reaches, in order."""
    node.fork()
    request = change.ready(node)
    node.kill()
    node.fork(points=path)
    node.call(change.rpc, **request)
    change.after(node)
    clear(node)
    return list(dict.fromkeys(name for name in path.read_text().splitlines() if name.startswith(change.prefixes)))


@pytest.mark.parametrize("kind", CHANGES)
def test_killed_at_each_point(node: Node, tmp_path: Path, kind: type[Change]) -> None:
    change = kind()
    points = points_of(node, change, tmp_path / "points")
    assert len(points) >= 2
    for point in points:
        print(point)
        request = change.ready(node)
        node.kill()
        node.fork(die_at=point)
        with pytest.raises(Unavailable):
            node.call(change.rpc, **request)
        node.died()
        node.fork()
        node.check()
        node.call(change.rpc, **request)
        change.after(node)
        node.check()
        clear(node)
