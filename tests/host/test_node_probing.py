"""Probes that pyrun-probe asks on for the agent: what it hears of them, and what it does without that program."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.node.agent import PATIENCE_S, SLEEP, AgentNode, an_agent, is_ready, pod, sh

OFTEN = {"periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 30}


@pytest.fixture
def agent(tmp_path: Path, busybox_rootfs: Path) -> Iterator[AgentNode]:
    with an_agent(tmp_path, busybox_rootfs) as made:
        yield made
        made.clear()


def probers_of(agent: AgentNode) -> list[int]:
    """The pids of those that run, or are stopped, in the network of its node: no other agent's."""
    network = os.readlink(f"/proc/{agent.node.pid}/ns/net")
    found = []
    for at in Path("/proc").glob("[0-9]*"):
        try:
            if (at / "comm").read_text() == "pyrun-probe\n" and os.readlink(at / "ns/net") == network:
                found.append(int(at.name))
        except OSError:
            continue
    return found


def prober_of(agent: AgentNode, *others: int) -> int:
    """The only one, when there is one beside these that are to go."""
    last = time.monotonic() + PATIENCE_S
    while len(found := probers_of(agent)) != 1 or found[0] in others:
        assert time.monotonic() < last, (found, agent.node.said.read_text())
        time.sleep(0.05)
    return found[0]


def wait_asks(pid: int) -> None:
    """Until it has had more to do than to be told what to ask."""
    last = time.monotonic() + PATIENCE_S
    while int(Path(f"/proc/{pid}/status").read_text().split("voluntary_ctxt_switches:\t")[1].split()[0]) < 12:
        assert time.monotonic() < last
        time.sleep(0.1)


def a_web(readiness: dict[str, Any]) -> dict[str, Any]:
    flag = {"name": "flags", "mountPath": "/flags"}
    script = f"httpd -p 8080 -h /flags; {SLEEP}"
    probe = {"httpGet": {"port": 8080, "path": "/ready"}, **readiness}
    web = sh("web", script, volumeMounts=[flag], readinessProbe=probe)
    return pod("asked", web, volumes=[{"name": "flags", "emptyDir": {}}])


def failures(agent: AgentNode, name: str) -> int:
    """How often its readiness probe was told that there is no such page."""
    said = agent.run("describe", name).ok().out
    found = re.search(r"(?:\(x(\d+)\) +)?Readiness probe failed: HTTP probe failed with statuscode: 404", said)
    return int(found[1] or 1) if found else 0


def test_a_probe_that_is_asked_on(agent: AgentNode) -> None:
    """Ready while it answers, not when it does not; liveness restarts; also after the program was killed."""
    flag = {"name": "flags", "mountPath": "/flags"}
    web = sh(
        "web",
        f"mkdir -p /flags/live; touch /flags/live/index.html; httpd -p 8080 -h /flags; {SLEEP}",
        volumeMounts=[flag],
        readinessProbe={"httpGet": {"port": 8080, "path": "/ready"}, **OFTEN},
        startupProbe={"httpGet": {"port": 8080, "path": "/live/"}, **OFTEN, "failureThreshold": 1000},
        livenessProbe={"httpGet": {"port": 8080, "path": "/live/"}, **OFTEN},
    )
    agent.write("asked", pod("asked", web, volumes=[{"name": "flags", "emptyDir": {}}]))
    found = agent.wait(lambda pods: "live" in agent.exec(pods.get("asked"), "ls", "/flags") and pods["asked"])
    for ends in (False, True):
        agent.exec(found, "touch", "/flags/ready")
        agent.wait_ready("asked")
        before = failures(agent, "asked")
        agent.exec(found, "rm", "/flags/ready")
        agent.wait(lambda pods: not is_ready(pods["asked"]))
        agent.wait(lambda pods, before=before: failures(agent, "asked") > before)  # type: ignore[misc]
        if not ends:
            pid = prober_of(agent)
            os.kill(pid, signal.SIGKILL)
            assert prober_of(agent, pid) != pid
    assert "its liveness probe failed" not in agent.run("describe", "asked").ok().out
    agent.exec(found, "rm", "-r", "/flags/live")
    agent.wait(lambda pods: pods["asked"]["status"]["containerStatuses"][0]["restartCount"] == 1)
    assert "its liveness probe failed" in agent.run("describe", "asked").ok().out


def test_a_prober_that_is_stopped(agent: AgentNode) -> None:
    """A pod that does not answer any more is not ready, although nobody has told of it, and the next prober begins."""
    agent.write("asked", a_web({"periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 5}))
    found = agent.wait(lambda pods: "flags" in agent.exec(pods.get("asked"), "ls", "/") and pods["asked"])
    agent.exec(found, "touch", "/flags/ready")
    agent.wait_ready("asked")
    pid = prober_of(agent)
    wait_asks(pid)
    os.kill(pid, signal.SIGSTOP)
    agent.exec(found, "rm", "/flags/ready")
    agent.wait(lambda pods: not is_ready(pods["asked"]), 3 * PATIENCE_S)
    assert "pyrun-probe: it does not ask any more" in agent.node.said.read_text()
    agent.exec(found, "touch", "/flags/ready")
    agent.wait_ready("asked")
    wait_asks(prober_of(agent, pid))


@pytest.mark.parametrize("how", ["restart", "kill", "kill with a stopped prober"])
def test_an_agent_that_comes_again_has_one_prober(agent: AgentNode, how: str) -> None:
    """The one before has ended with its agent, stopped or not, and the pod stays ready meanwhile."""
    agent.write("asked", a_web({"periodSeconds": 1, "timeoutSeconds": 30}))
    found = agent.wait(lambda pods: "flags" in agent.exec(pods.get("asked"), "ls", "/") and pods["asked"])
    agent.exec(found, "touch", "/flags/ready")
    since = condition(agent.wait_ready("asked"), "Ready")
    pid = prober_of(agent)
    wait_asks(pid)
    if how == "kill with a stopped prober":
        os.kill(pid, signal.SIGSTOP)
    if how == "restart":
        agent.node.stop()
    else:
        agent.node.kill()
    agent.node.start()
    assert prober_of(agent, pid) != pid
    assert condition(agent.wait_ready("asked"), "Ready") == since
    agent.exec(found, "rm", "/flags/ready")
    agent.wait(lambda pods: not is_ready(pods["asked"]))


def condition(pod: dict[str, Any], type: str) -> dict[str, Any]:
    return next(c for c in pod["status"]["conditions"] if c["type"] == type)
