"""Deployments of files: a rolling update behind a Service, without a request that fails, and the end of one."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.node.agent import AgentNode, an_agent, pod, sh
from tests.support.node.service import service

pytestmark = pytest.mark.root
ADDRESS, PATIENCE_S = "10.96.0.77", 60.0


@pytest.fixture
def agent(tmp_path: Path, busybox_rootfs: Path) -> Iterator[AgentNode]:
    with an_agent(tmp_path, busybox_rootfs, "--service-cidr", "10.96.0.0/16", "--node-ip", "127.0.0.1") as made:
        yield made


def deployment(page: str, replicas: int = 2, **spec: Any) -> dict[str, Any]:
    """Its pods answer for a moment after they have been asked to end, as is usual behind a Service."""
    script = f"mkdir -p /tmp/www; echo {page} >/tmp/www/index.html; exec httpd -f -p 8080 -h /tmp/www"
    probe = {"httpGet": {"port": 8080, "path": "/index.html"}, "periodSeconds": 1}
    stop = {"preStop": {"sleep": {"seconds": 1}}}
    template = pod("unnamed", sh("c", script, readinessProbe=probe, lifecycle=stop))
    template = {"metadata": {"labels": {"app": "web"}}, "spec": template["spec"]}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template, **spec}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}


def apply(agent: AgentNode, *objects: Any) -> str:
    path = agent.node.path / "given.yaml"
    path.write_text(yaml.safe_dump_all(objects))
    return agent.run("apply", "-f", str(path)).ok().out


def status(agent: AgentNode) -> dict[str, Any]:
    found = json.loads(agent.run("get", "deployments", "web", "-o", "json").ok().out)["status"]
    return {word: found.get(f"{word}Replicas", 0) for word in ("updated", "ready", "available", "terminating")}


class Client(threading.Thread):
    """One request after the other, each by a connection of its own."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: Counter[str] = Counter()
        self.failed: list[str] = []
        self.ended = threading.Event()
        self.began = time.time()

    def run(self) -> None:
        while not self.ended.is_set():
            try:
                page = get()
            except OSError as error:
                self.failed.append(f"{time.time() - self.began:.2f} {error}")
                continue
            self.seen[page] += 1
            if page not in ("one", "two"):
                self.failed.append(page)


def get() -> str:
    with socket.create_connection((ADDRESS, 80), timeout=PATIENCE_S) as made:
        made.sendall(b"GET /index.html HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: made.recv(65536), b""))
    return answer.decode().rpartition("\r\n\r\n")[2].strip()


def test_a_rolling_update_without_a_failed_request(agent: AgentNode) -> None:
    """Then a pod that is taken away is replaced, and the Deployment goes, with its pods."""
    agent.write("service", service("web", clusterIP=ADDRESS))
    assert apply(agent, deployment("one")) == "deployment/web created\n"
    agent.wait(lambda pods: status(agent)["available"] == 2)
    names = set(agent.pods())
    assert len(names) == 2 and all(name.startswith("web-") and len(name) == 20 for name in names)
    table = [line.split() for line in agent.run("get", "deploy").ok().out.splitlines()]
    assert table == [["NAME", "READY", "UP-TO-DATE", "AVAILABLE"], ["web", "2/2", "2", "2"]]
    agent.wait(lambda pods: _is("one"))
    client = Client()
    client.start()
    try:
        agent.wait(lambda pods: client.seen["one"] > 3)
        assert apply(agent, deployment("two")) == "deployment/web configured\n"
        agent.wait(lambda pods: client.seen["two"] > 0)
        done = {"updated": 2, "ready": 2, "available": 2, "terminating": 0}
        agent.wait(lambda pods: status(agent) == done and not names & set(pods))
        before = client.seen["one"]
        agent.wait(lambda pods: client.seen["two"] > 5)
        assert client.seen["one"] == before
    finally:
        client.ended.set()
        client.join(PATIENCE_S)
    assert not client.failed, client.failed[:5]
    victim = sorted(agent.pods())[0]
    agent.run("delete", "pod", victim, "--now").ok()
    agent.wait(lambda pods: victim not in pods and status(agent)["available"] == 2)
    assert apply(agent, deployment("two", replicas=1)) == "deployment/web configured\n"
    agent.wait(lambda pods: len(pods) == 1)
    assert agent.run("delete", "deployment", "web", "--now").ok().out == "deployment/web deleted\n"
    assert agent.pods() == {}
    assert (
        "nothing was changed" in agent.run("apply", "-f", "/dev/stdin", stdin=yaml.safe_dump(deployment("x", -1))).err
    )


def _is(page: str) -> bool:
    try:
        return get() == page
    except OSError:
        return False
