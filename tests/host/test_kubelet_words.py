"""`pyrun kubelet`: a node that is asked in a kubelet's words, and ports that let everybody in where that is wanted."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.container.disk import unmount
from tests.support.cri.node import a_node
from tests.support.kube.authority import KubeletClient
from tests.support.node.agent import WAIT, AgentNode, pod, sh

HOST, PORT, HEALTHZ, READ_ONLY = "127.0.0.1", 10250, 10248, 10255
COMMAND = "/exec/default/web/c?command=echo&command=hello&output=1"


@pytest.fixture(params=["AlwaysAllow", "Webhook"], scope="module")
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory, busybox_rootfs: Path, mode: str) -> Iterator[AgentNode]:
    path = tmp_path_factory.mktemp("kubelet")
    try:
        with a_node(path, busybox_rootfs) as node:
            made = AgentNode(node)
            written = {
                "apiVersion": "kubelet.config.k8s.io/v1beta1",
                "kind": "KubeletConfiguration",
                "staticPodPath": str(made.manifests),
                "podLogsDir": str(node.logs),
                "address": HOST,
                "readOnlyPort": READ_ONLY,
                "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": mode == "Webhook"}},
                "authorization": {"mode": mode},
                "kubeAPIQPS": 77,
            }
            runtime, node.config = node.config, str(path / "kubelet.yaml")
            Path(node.config).write_text(yaml.safe_dump(written))
            node.words = ("kubelet", "--runtime-config", str(runtime), "--hostname-override", "n1", "--v", "4")
            node.start()
            made.write("web", pod("web", sh("c", WAIT)))
            made.wait_ready("web")
            yield made
            made.clear()
    finally:
        unmount(path / "state" / "volumes")


def plain(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}{path}", timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_the_port_that_is_read_only(agent: AgentNode) -> None:
    status, body = plain(READ_ONLY, "/pods")
    assert status == 200 and [one["metadata"]["name"] for one in json.loads(body)["items"]] == ["web"]
    assert plain(READ_ONLY, "/healthz") == plain(HEALTHZ, "/healthz") == (200, "ok")
    assert "container_cpu_usage_seconds_total" in plain(READ_ONLY, "/metrics/cadvisor")[1]
    for path in (
        COMMAND,
        "/containerLogs/default/web/c",
        "/configz",
        "/portForward/default/web",
        "/attach/default/web/c",
    ):
        assert plain(READ_ONLY, path)[0] == 404, path


def test_whoever_is_not_known(agent: AgentNode, mode: str) -> None:
    """He is system:anonymous. Without an API server's word he may nothing, unless everybody may everything."""
    nobody = KubeletClient(HOST, PORT, agent.node.root / "kubelet" / "serving.pem")
    for headers in ({}, {"Authorization": "Bearer x"}):
        status, body = nobody.ask("/pods", **headers)
        if mode == "AlwaysAllow":
            assert status == 200 and json.loads(body)["items"]
        else:
            needed = "get nodes/pods or get nodes/proxy"
            assert (status, body) == (403, f"Forbidden: user system:anonymous lacks {needed}\n")
    config = nobody.ask("/configz")
    if mode == "AlwaysAllow":
        told = json.loads(config[1])["kubeletconfig"]
        assert told["authentication"]["anonymous"] == {"enabled": True} and told["readOnlyPort"] == READ_ONLY
        assert told["authorization"] == {"mode": "AlwaysAllow"}
    else:
        assert config[0] == nobody.ask(COMMAND, "POST")[0] == 403


def test_it_says_what_has_no_effect_and_what_is_dangerous(agent: AgentNode, mode: str) -> None:
    said = agent.node.said.read_text()
    assert "kubeAPIQPS: has no effect" in said
    assert ("whoever reaches the kubelet's port runs commands in every pod" in said) == (mode == "AlwaysAllow")
