"""Probes that pyrun-probe asks on for the agent: what it hears of them, and what it does without that program."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.node.agent import SLEEP, AgentNode, an_agent, is_ready, pod, sh

OFTEN = {"periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 30}


@pytest.fixture
def agent(tmp_path: Path, busybox_rootfs: Path) -> Iterator[AgentNode]:
    with an_agent(tmp_path, busybox_rootfs) as made:
        yield made
        made.clear()


def prober_of(agent: AgentNode) -> int:
    """Its pid; 0: there is none now."""
    for pid in Path(f"/proc/{agent.node.pid}/task/{agent.node.pid}/children").read_text().split():
        try:
            if Path(f"/proc/{pid}/comm").read_text() == "pyrun-probe\n":
                return int(pid)
        except OSError:
            continue
    return 0


def test_a_probe_that_is_asked_on(agent: AgentNode) -> None:
    """Ready while it answers, not when it does not; liveness restarts; also after the program was killed."""
    flag = {"name": "flags", "mountPath": "/flags"}
    web = sh(
        "web",
        f"mkdir -p /flags/live; touch /flags/live/index.html; httpd -p 8080 -h /flags; {SLEEP}",
        volumeMounts=[flag],
        readinessProbe={"httpGet": {"port": 8080, "path": "/ready"}, **OFTEN},
        livenessProbe={"httpGet": {"port": 8080, "path": "/live/"}, **OFTEN, "initialDelaySeconds": 2},
    )
    agent.write("asked", pod("asked", web, volumes=[{"name": "flags", "emptyDir": {}}]))
    found = agent.wait(lambda pods: "live" in agent.exec(pods.get("asked"), "ls", "/flags") and pods["asked"])
    for ends in (False, True):
        agent.exec(found, "touch", "/flags/ready")
        agent.wait_ready("asked")
        agent.exec(found, "rm", "/flags/ready")
        agent.wait(lambda pods: not is_ready(pods["asked"]))
        said = agent.run("describe", "asked").ok().out
        assert "Readiness probe failed: HTTP probe failed with statuscode: 404" in said
        if not ends:
            pid = prober_of(agent)
            assert pid
            os.kill(pid, signal.SIGKILL)
            agent.wait(lambda pods: not prober_of(agent))
    assert prober_of(agent) == 0
    agent.exec(found, "rm", "-r", "/flags/live")
    agent.wait(lambda pods: pods["asked"]["status"]["containerStatuses"][0]["restartCount"] == 1)
    assert "its liveness probe failed" in agent.run("describe", "asked").ok().out
