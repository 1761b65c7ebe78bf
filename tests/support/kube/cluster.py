"""A cluster as a test has it: a control plane with one node of pyrun, and a namespace of the test's own."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pyrun.kube.client import path
from pyrun.kube.signing import PLURAL, SERVING, VERSION
from tests.support.container.disk import unmount
from tests.support.container.runner import runtime_argv
from tests.support.cri.node import BUSYBOX, a_node
from tests.support.kube import bootstrap
from tests.support.kube.control_plane import HOST, PROGRAMS, SERVICES, ControlPlane, a_control_plane, program
from tests.support.kube.kubelet import ADDRESS, own_address
from tests.support.node.agent import AgentNode, is_ready


def approve(plane: ControlPlane) -> None:
    """The serving certificate, which no controller approves."""

    def waits() -> Any:
        found = plane.admin.list(path(VERSION, PLURAL))[0]
        return [one for one in found if one["spec"]["signerName"] == SERVING and not one["status"]]

    (request,) = plane.wait("kube-apiserver", waits)
    plane.kubectl("certificate", "approve", request["metadata"]["name"])


@contextlib.contextmanager
def a_plane_and_node(
    directory: Path, rootfs: Path, name: str, whole: bool = False, prepare: Callable[[AgentNode], None] | None = None
) -> Iterator[tuple[ControlPlane, AgentNode]]:
    """A control plane, and a node that has joined it. whole: with all controllers, and pods reach the API server.
    prepare: called before the node starts. Skips where the programs have not been built."""
    for one in PROGRAMS:
        program(one)
    (directory / "plane").mkdir()
    try:
        with a_node(directory / "node", rootfs) as node:
            own_address()
            with a_control_plane(directory / "plane", nodes=True, address=ADDRESS if whole else HOST) as plane:
                agent = AgentNode(node)
                if prepare is not None:
                    prepare(agent)
                bootstrap.prepare(plane)
                words = ("--server", plane.url, "--token", bootstrap.token(plane, "abcdef"), "--ca-file", plane.ca)
                where = ("--root", str(node.root), "--node-name", name)
                subprocess.run([*runtime_argv(), "node", "join", *where, *words], check=True, timeout=120)
                node.words += ("--node-ip", ADDRESS, "--service-cidr", SERVICES)
                node.start()
                approve(plane)
                yield plane, agent
                subprocess.run(["ip", "link", "del", "node0"], check=True)
                agent.clear()
    finally:
        unmount(directory / "node" / "state" / "volumes")


class Cluster:
    """namespace: of the test."""

    def __init__(self, plane: ControlPlane, agent: AgentNode, namespace: str) -> None:
        self.plane, self.agent, self.namespace = plane, agent, namespace

    def kubectl(self, *argv: str, stdin: str | None = None) -> str:
        return self.plane.kubectl("-n", self.namespace, *argv, stdin=stdin)

    def command(self, *argv: str) -> list[str]:
        return self.plane.command("-n", self.namespace, *argv)

    def try_kubectl(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*argv), capture_output=True, text=True, timeout=60, check=False)

    @contextlib.contextmanager
    def forwarded(self, pod: str, port: int) -> Iterator[int]:
        """A port of this machine that leads to the pod's."""
        command = self.command("port-forward", pod, f":{port}")
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("Forwarding from 127.0.0.1:"), line
            yield int(line.split(":")[1].split()[0])
        finally:
            process.terminate()
            process.communicate(timeout=60)

    def apply(self, *objects: dict[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))

    def get(self, what: str, name: str = "") -> Any:
        words = [what, name] if name else [what]
        found = json.loads(self.kubectl("get", *words, "-o", "json", "--ignore-not-found") or "{}")
        return found if name else found.get("items", [])

    def wait(self, true: Callable[[], Any]) -> Any:
        try:
            return self.plane.wait("kube-apiserver", true)
        except AssertionError:
            told = self.kubectl("get", "pods,events", "-o", "yaml")
            raise AssertionError(f"{told[-6000:]}\n{self.agent.node.said.read_text()[-3000:]}") from None

    def wait_pod(self, name: str, true: Callable[[Any], Any]) -> Any:
        def look() -> Any:
            found = self.get("pod", name)
            return found if found and true(found) else None

        return self.wait(look)

    def wait_ready(self, name: str) -> Any:
        return self.wait_pod(name, is_ready)

    def pod(self, name: str, *containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
        made = [{"image": BUSYBOX, **c} for c in containers]
        spec = {"containers": made, "terminationGracePeriodSeconds": 5, **spec}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
