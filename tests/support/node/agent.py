"""A node of the test's own with the agent: `pyrun node run` over a directory of manifests."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from pyrun.errors import PyrunError
from tests.support.container.disk import unmount
from tests.support.container.leaks import CGROUP_ROOT
from tests.support.container.runner import Result, runtime_argv
from tests.support.cri.node import BUSYBOX, Node, a_node

PATIENCE_S = 60.0
# It has no child that comes and goes.
WAIT = "mkfifo /f; exec 3<>/f; trap 'exit 0' TERM; while :; do read -t 1 x <&3; done"
SLEEP = "trap 'exit 0' TERM; while :; do sleep 0.05; done"


class AgentNode:
    """manifests: the directory. It runs as Node.start() starts it."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.manifests = node.path / "manifests"
        self.manifests.mkdir(exist_ok=True)
        node.words = ("node", "run", "--manifests", str(self.manifests), "--logs", str(node.logs))
        node.words += ("--node-name", "n1", "--max-restart-period", "1", "--container-log-max-size", "64k")
        node.words += ("--eviction-hard", "nodefs.available<1%")  # pods do not wait where this machine's disk is fuller

    def run(self, *argv: str, stdin: str | None = None) -> Result:
        """`pyrun node ARGV`."""
        command = [*runtime_argv(), "node", argv[0], "--state", str(self.node.state), *argv[1:]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, input=stdin, check=False)
        return Result(tuple(command), done.returncode, done.stdout, done.stderr)

    def write(self, name: str, *objects: Any) -> Path:
        """Objects as a file, moved into place."""
        made, path = self.node.path / "made", self.manifests / f"{name}.yaml"
        made.write_text(yaml.safe_dump_all(objects))
        os.replace(made, path)
        return path

    def pods(self) -> dict[str, Any]:
        """By name, of all namespaces."""
        found = json.loads(self.run("get", "-A", "-o", "json").ok().out)["items"]
        return {pod["metadata"]["name"]: pod for pod in found}

    def wait(self, done: Callable[[dict[str, Any]], Any], patience_s: float = PATIENCE_S) -> Any:
        """Until it says something of the pods that is true; that."""
        last = time.monotonic() + patience_s
        while True:
            pods = self.pods()
            if found := done(pods):
                return found
            assert time.monotonic() < last, self._told_of(pods)
            time.sleep(0.05)

    def _told_of(self, pods: dict[str, Any]) -> str:
        events = "".join(self.run("describe", name).out for name in pods)
        return f"{yaml.safe_dump(pods)}\n{events}\n{self.node.said.read_text()}"

    def exec(self, pod: dict[str, Any] | None, *argv: str) -> str:
        """What a command in its first container writes; "" where that does not run."""
        first = pod["status"]["containerStatuses"][0] if pod else {}
        id = (first.get("containerID") or "").removeprefix("pyrun://")
        try:
            return str(self.node.call("ExecSync", container_id=id, cmd=list(argv)).stdout.decode())
        except PyrunError:
            return ""

    @property
    def most_memory(self) -> str:
        """More than half of the node's."""
        return str(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 10 * 6)

    def wait_phase(self, name: str, phase: str) -> Any:
        return self.wait(lambda pods: name in pods and pods[name]["status"]["phase"] == phase and pods[name])

    def wait_ready(self, name: str) -> Any:
        return self.wait(lambda pods: name in pods and is_ready(pods[name]) and pods[name])

    def clear(self) -> None:
        """No manifest, and nothing left of any pod."""
        for path in self.manifests.iterdir():
            path.unlink()
        self.wait(lambda pods: not pods)
        self.node.check()
        assert not (CGROUP_ROOT / "kubepods").exists()
        assert not list((self.node.root / "node" / "pods").glob("*")) and not list(self.node.logs.glob("*"))


def is_ready(pod: dict[str, Any]) -> bool:
    conditions = {c["type"]: c["status"] for c in pod["status"].get("conditions", ())}
    return conditions.get("Ready") == "True"


def pod(name: str, *containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """A Pod of namespace default; busybox, where a container names no image."""
    made = [{"image": BUSYBOX, **c} for c in containers]
    inits = [{"image": BUSYBOX, **c} for c in spec.pop("initContainers", ())]
    if inits:
        spec["initContainers"] = inits
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": made, "terminationGracePeriodSeconds": 5, **spec},
    }


def sh(name: str, script: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "command": ["sh", "-c", script], **fields}


@contextlib.contextmanager
def an_agent(
    path: Path, rootfs: Path, *words: str, prepare: Callable[[AgentNode], None] | None = None
) -> Iterator[AgentNode]:
    """It runs, with these options too. prepare: called in the node's network before it does."""
    try:
        with a_node(path, rootfs) as node:
            agent = AgentNode(node)
            node.words += words
            if prepare is not None:
                prepare(agent)
            node.start()
            yield agent
            agent.clear()
    finally:
        unmount(path / "state" / "volumes")
