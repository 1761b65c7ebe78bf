"""A real kubelet, alone (without an API server), over a daemon of ours: what it runs are files in a directory.

It asks for a node with an address, its own /var/lib/kubelet (the paths of its device plugins are fixed) and its own
directories; all of these are the test's. Its answers come from its server on port 10250, as kubectl would ask it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml

from tests.support.cri.node import BUSYBOX, Node, a_node

ADDRESS = "10.77.0.1"
URL = f"https://{ADDRESS}:10250"
NAME = "node1"
FIXED = Path("/var/lib/kubelet")
UP_S = PATIENCE_S = 120.0
UNVERIFIED = ssl._create_unverified_context()


@dataclass
class Kubelet:
    """node: the CRI's daemon, which runs. words: options besides."""

    node: Node
    program: Path
    words: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.path = self.node.path / "kubelet"
        self.manifests = self.path / "manifests"
        self.manifests.mkdir(parents=True)
        self.said = self.path / "kubelet.log"
        self.config = self.path / "config.yaml"
        self.config.write_text(yaml.safe_dump(self._configuration()))

    def _configuration(self) -> dict[str, Any]:
        nearly_nothing = {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"}
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": f"unix://{self.node.socket}",
            "staticPodPath": str(self.manifests),
            "podLogsDir": str(self.path / "logs"),
            "volumePluginDir": str(self.path / "plugins"),
            "cgroupDriver": "cgroupfs",
            "cgroupsPerQOS": False,
            "enforceNodeAllocatable": [],
            "failSwapOn": False,
            "address": ADDRESS,
            "resolvConf": "",
            "clusterDNS": ["10.96.0.10"],
            "clusterDomain": "cluster.local",
            "evictionHard": nearly_nothing,
            "imageGCHighThresholdPercent": 100,
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "crashLoopBackOff": {"maxContainerRestartPeriod": "2s"},
            "featureGates": {"KubeletCrashLoopBackOffMax": True},
        }

    # --- the program ---

    def start(self) -> None:
        argv = [str(self.program), "--config", str(self.config), "--root-dir", str(self.path / "root")]
        argv += ["--cert-dir", str(self.path / "pki"), "--hostname-override", NAME, "--node-ip", ADDRESS, "--v", "2"]
        argv += self.words
        with self.said.open("ab") as said:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        self.wait(self._serves, UP_S)

    def _serves(self) -> bool:
        assert self.process is not None and self.process.poll() is None, self.said.read_text()[-3000:]
        with contextlib.suppress(OSError):
            return self.ask("/healthz") == b"ok"
        return False

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(PATIENCE_S)
        self.process = None

    def end(self) -> None:
        """Without pods, if it still can."""
        if self.process is None:
            return
        for manifest in self.manifests.iterdir():
            manifest.unlink()
        try:
            self.wait(lambda: not self.pods())
        finally:
            self._end(signal.SIGTERM)

    # --- what it is asked ---

    def ask(self, path: str, **words: str) -> bytes:
        """Its answer to a GET. OSError."""
        query = f"?{urlencode(words)}" if words else ""
        with urllib.request.urlopen(f"{URL}{path}{query}", timeout=PATIENCE_S, context=UNVERIFIED) as answer:
            data: bytes = answer.read()
            return data

    def pods(self) -> dict[str, dict[str, Any]]:
        """By name, as their manifests have it."""
        items = json.loads(self.ask("/pods"))["items"] or []
        return {item["metadata"]["name"].removesuffix(f"-{NAME}"): item for item in items}

    def pod(self, name: str) -> dict[str, Any]:
        return self.pods().get(name, {"status": {}})

    def log(self, pod: str, container: str = "c", **words: str) -> str:
        return self.ask(f"/containerLogs/default/{pod}-{NAME}/{container}", **words).decode()

    # --- pods ---

    def run(self, name: str, *containers: dict[str, Any], **spec: Any) -> None:
        """A pod of these, with names, images and a short grace where they say none."""
        whole = [{"name": "c", "image": BUSYBOX, "imagePullPolicy": "IfNotPresent", **one} for one in containers]
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"containers": whole, "terminationGracePeriodSeconds": 1, **spec},
        }
        partial = self.path / f"{name}.partial"
        partial.write_text(json.dumps(pod))
        partial.rename(self.manifests / f"{name}.json")

    def remove(self, name: str) -> None:
        (self.manifests / f"{name}.json").unlink()

    def state(self, pod: str, container: str = "c") -> dict[str, Any]:
        """A container's status; {} where there is none."""
        status = self.pod(pod)["status"]
        all = status.get("containerStatuses", []) + status.get("initContainerStatuses", [])
        return next((one for one in all if one["name"] == container), {})

    def wait(self, true: Callable[[], Any], seconds: float = PATIENCE_S) -> Any:
        """What it returns when that is true at last."""
        last = time.monotonic() + seconds
        while not (found := true()):
            assert time.monotonic() < last, self.why()
            time.sleep(0.1)
        return found

    def wait_ready(self, name: str) -> dict[str, Any]:
        """The pod's status."""
        self.wait(lambda: is_ready(self.pod(name)))
        status: dict[str, Any] = self.pod(name)["status"]
        return status

    def wait_ended(self, pod: str, container: str = "c") -> dict[str, Any]:
        """How it ended."""
        found: dict[str, Any] = self.wait(lambda: self.state(pod, container).get("state", {}).get("terminated"))
        return found

    def why(self) -> str:
        errors = [line for line in self.said.read_text().splitlines() if line.startswith("E")]
        pods = {name: pod["status"] for name, pod in self.pods().items()}
        return "\n".join([*errors[-15:], json.dumps(pods, indent=1)[-6000:], self.node.said.read_text()[-3000:]])


def is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


@contextlib.contextmanager
def a_kubelet(path: Path, rootfs: Path, program: Path) -> Iterator[Kubelet]:
    """With a node of its own; it runs, and at its end nothing may be left of its pods."""
    with own_directory(), a_node(path, rootfs) as node:
        own_address()
        node.start()
        kubelet = Kubelet(node, program)
        try:
            kubelet.start()
            yield kubelet
        finally:
            kubelet.end()
            subprocess.run(["ip", "link", "del", "node0"], check=True)


@contextlib.contextmanager
def own_directory() -> Iterator[None]:
    """The one whose path is fixed."""
    there = FIXED.exists()
    FIXED.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "kubelet", FIXED], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", FIXED], check=True)
        if not there:
            os.rmdir(FIXED)


def own_address() -> None:
    """A pair of links with the node's address, and a route to the world behind it, which is not there."""
    for line in (
        "link add node0 type veth peer name world0",
        f"addr add {ADDRESS}/24 dev node0",
        "link set node0 up",
        "link set world0 up",
        "route add default via 10.77.0.254 dev node0",
    ):
        subprocess.run(["ip", *line.split()], check=True)
