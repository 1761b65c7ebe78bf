"""The part of power_cut.py that is about `pyrun cri`: its root is on the disk that outlives the machine, and its state
on /run, as on a node. A pod that is on the disk when the power goes is looked for after it; others come and go.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

from pyrun import cri_api as v1
from tests.support.container.runner import REPO
from tests.support.cri.node import Node

STEADY = "steady"
STATE = Path("/run/pyrun-cri-cut")
CONFIG = 'cgroup_driver = "cgroupfs"\ncni_conf_dir = ""\n'
NAMES = [f"w{number}" for number in range(3)]
SLEEP = "trap 'exit 0' TERM; while :; do sleep 0.2; done"


class CutNode(Node):
    """pods: those that work() has made, by name."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.state = STATE
        self.socket = self.state / "cri.sock"
        self.state.mkdir(0o700)
        self.configure(CONFIG)
        self.pods: dict[str, str] = {}

    def _known(self) -> dict[str, Any]:
        path = self.path / STEADY
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return found

    def look(self) -> list[str]:
        """After a cut all pods are told as not ready and all containers as ended, nothing of them is left, and new ones
        run, of the same names too. What there was."""
        self.start()
        known, pods = self._known(), self.call("ListPodSandbox").items
        assert all(pod.state == v1.SANDBOX_NOTREADY for pod in pods), pods
        for c in self.call("ListContainers").containers:
            self.wait_state(c.id, v1.CONTAINER_EXITED)
        self.check()
        if known:
            assert known["pod"] in [pod.id for pod in pods]
            lost, ended = self.status(known["running"]), self.status(known["ended"])
            assert (lost.exit_code, lost.reason) == (255, "Unknown"), lost
            assert (ended.exit_code, ended.reason) == (3, "Error"), ended
        attempt = max((pod.metadata.attempt for pod in pods), default=-1) + 1
        self._runs(attempt)
        left = sorted(pod.metadata.name for pod in pods)
        self.clear()
        return left

    def _runs(self, attempt: int) -> None:
        metadata = {"name": STEADY, "namespace": "default", "uid": f"uid-{STEADY}", "attempt": attempt}
        pod = self.run_pod(STEADY, metadata=metadata)
        id = self.run(pod, "again", "echo hi; exit 5", STEADY)
        assert self.wait_state(id, v1.CONTAINER_EXITED).exit_code == 5
        assert self.log("again", STEADY)[-1] == "hi"

    def prepare(self) -> None:
        """What the next look() finds: one that runs and one that has ended, on the disk."""
        pod = self.run_pod(STEADY)
        running, ended = self.run(pod, "running", SLEEP, STEADY), self.run(pod, "ended", "exit 3", STEADY)
        self.wait_state(ended, v1.CONTAINER_EXITED)
        known = {"pod": pod, "running": running, "ended": ended}
        (self.path / STEADY).write_text(json.dumps(known))
        os.sync()

    def work(self, chosen: random.Random) -> None:
        """Makes a pod with a container, or removes one."""
        name = chosen.choice(NAMES)
        pod = self.pods.pop(name, None)
        if pod is None:
            self.pods[name] = self.run_pod(name)
            self.run(self.pods[name], script=SLEEP, pod_name=name)
        else:
            self.call("RemovePodSandbox", pod_sandbox_id=pod)


def cut_node(kept: Path) -> CutNode:
    """With its image, which is put in the first time."""
    path = kept / "node"
    is_new = not (path / "imaged").exists()
    node = CutNode(path, (REPO / ".cache/rootfs/busybox").resolve())
    if is_new:
        node.add_image()
        os.sync()
        (path / "imaged").touch()
    return node
