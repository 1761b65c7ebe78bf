"""Volumes in real containers, and probes of them by the pod's address: what the agent puts together, by hand."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from google.protobuf import json_format

from pyrun.kube.objects.config import ConfigMap
from pyrun.kube.objects.containers import Container, ContainerPort, HTTPGetAction, Probe, TCPSocketAction
from pyrun.kube.objects.pods import Pod
from pyrun.node.probes import Prober, Result, Target
from pyrun.node.volumes import Objects, Volumes
from tests.support.container.disk import unmount
from tests.support.cri.node import OWN_PIDS, Node
from tests.support.cri.node import node as node
from tests.support.cri.node import one_node as one_node

pytestmark = pytest.mark.root
UID = "uid-p"
PRIVILEGED = {"security_context": {**OWN_PIDS["security_context"], "privileged": True}}
PATIENCE_S = 60.0


@pytest.fixture
def volumes(node: Node, tmp_path: Path) -> Iterator[Volumes]:
    made = Volumes(str(tmp_path / "disk"), str(tmp_path / "memory"))
    made.prepare()
    yield made
    node.clear()
    made.remove(UID)
    unmount(tmp_path / "memory")


def pod_of(volumes: list[dict[str, Any]], **mounts: list[dict[str, Any]]) -> Pod:
    """Keywords are containers' names and their volumeMounts."""
    containers = [{"name": name, "volumeMounts": found} for name, found in mounts.items()]
    spec = {"containers": containers, "volumes": volumes, "securityContext": {"fsGroup": 4242}}
    return msgspec.convert({"metadata": {"name": "p", "namespace": "ns"}, "spec": spec}, Pod)


def config(value: str) -> Objects:
    return Objects({("ns", "config"): ConfigMap(data={"file": value})})


def run(node: Node, volumes: Volumes, pod: Pod, sandbox: str, name: str, script: str, **words: Any) -> str:
    assert pod.spec is not None
    container = next(c for c in pod.spec.containers if c.name == name)
    mounts = [json.loads(json_format.MessageToJson(m)) for m in volumes.mounts(pod, UID, container, {})]
    return node.run(sandbox, name, script, mounts=mounts, **words)


def wait(what: Callable[[], bool], node: Node, *names: str) -> None:
    last = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < last, {name: node.log(name) for name in names}
        time.sleep(0.02)


def test_a_container_sees_its_volumes_and_their_updates(node: Node, volumes: Volumes) -> None:
    pod = pod_of(
        [{"name": "config", "configMap": {"name": "config"}}, {"name": "empty", "emptyDir": {}}],
        c=[
            {"name": "config", "mountPath": "/config"},
            {"name": "config", "mountPath": "/config.once", "subPath": "file"},
            {"name": "empty", "mountPath": "/sub", "subPath": "a/b"},
            {"name": "empty", "mountPath": "/empty"},
            {"name": "empty", "mountPath": "/empty.ro", "readOnly": True, "recursiveReadOnly": "Enabled"},
        ],
    )
    volumes.make(pod, UID, config("one"))
    script = """
        echo $(cat /config/file) $(cat /config.once)
        echo x >/config/file || echo read-only
        echo x >/empty.ro/file || echo read-only
        touch /sub/made && ls /empty/a/b && stat -c '%g %a' /empty
        until [ $(cat /config/file) = two ]; do sleep 0.05; done
        echo $(cat /config/file) $(cat /config.once)
    """
    run(node, volumes, pod, node.run_pod(), "c", script)
    wait(lambda: "4242 2777" in node.log("c"), node, "c")
    volumes.update(pod, UID, config("two"))
    wait(lambda: "two one" in node.log("c"), node, "c")
    said = [line for line in node.log("c") if "Read-only" not in line]
    assert said == ["one one", "read-only", "read-only", "made", "4242 2777", "two one"]


def test_propagation_between_the_containers_of_a_pod(node: Node, volumes: Volumes) -> None:
    """A FUSE sidecar and who uses it; a third, without propagation, and the host see none of it."""
    at = {"name": "empty", "mountPath": "/shared"}
    pod = pod_of(
        [{"name": "empty", "emptyDir": {}}],
        server=[{**at, "mountPropagation": "Bidirectional"}],
        user=[{**at, "mountPropagation": "HostToContainer"}],
        other=[at],
    )
    volumes.make(pod, UID, Objects())
    sandbox = node.run_pod(linux=PRIVILEGED)
    for name in ("user", "other"):
        script = "until [ -e /shared/ready ]; do sleep 0.05; done; ls /shared/in; echo done; exec sleep 1000"
        run(node, volumes, pod, sandbox, name, script)
    server = "mkdir /shared/in; mount -t tmpfs tmpfs /shared/in && touch /shared/in/file /shared/ready; exec sleep 1000"
    run(node, volumes, pod, sandbox, "server", server, linux=PRIVILEGED)
    wait(lambda: all("done" in node.log(name) for name in ("user", "other")), node, "user", "other", "server")
    assert node.log("user") == ["file", "done"]
    assert node.log("other") == ["done"]
    assert (Path(volumes.disk) / UID / "empty/in").is_dir()
    assert not (Path(volumes.disk) / UID / "empty/in/file").exists()
    node.clear()
    volumes.remove(UID)
    assert volumes.known() == []


def test_probes_by_the_pods_address(node: Node) -> None:
    """From the node, until the program listens, and after."""
    sandbox = node.run_pod()
    address = node.call("PodSandboxStatus", pod_sandbox_id=sandbox).status.network.ip
    container = Container(name="c", ports=[ContainerPort(name="web", containerPort=8080)])
    target = Target("c", container, address)
    http = Probe(httpGet=HTTPGetAction(port="web", path="/index.html"), timeoutSeconds=30)
    tcp = Probe(tcpSocket=TCPSocketAction(port=8080), timeoutSeconds=30)

    async def exec_(id: str, argv: tuple[str, ...], timeout: float) -> tuple[int, bytes, bytes]:
        raise AssertionError("nothing is executed")

    def ask(probe: Probe) -> Result:
        return asyncio.run(Prober(exec_).run(probe, target))

    for probe in (http, tcp):
        result = ask(probe)
        assert result.good is False and "connection refused" in result.output
    script = """
        mkfifo /tmp/q
        while :; do
            nc -l -p 8080 </tmp/q | head -n 1 >/dev/null &
            printf 'HTTP/1.0 200 OK\\r\\n\\r\\nwelcome' >/tmp/q; wait
        done
    """
    node.run(sandbox, "c", script)
    wait(lambda: ask(http).output == "welcome", node, "c")
    wait(lambda: ask(tcp).good is True, node, "c")
