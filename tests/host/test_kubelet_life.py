"""The process that serves the kubelet's API: it comes back, and it ends with the agent."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.kube.authority import Authority, KubeletClient, children
from tests.support.node.agent import WAIT, AgentNode, an_agent, pod, sh

HOST, PORT = "127.0.0.1", 10260


@pytest.fixture
def other(tmp_path: Path, busybox_rootfs: Path) -> Iterator[tuple[AgentNode, KubeletClient]]:
    """An agent of the test's own, with one pod."""
    authority = Authority(tmp_path / "authority")
    words = ("--client-ca-file", authority.ca, "--address", HOST, "--port", str(PORT), "--healthz-port", "0")
    with an_agent(tmp_path / "agent", busybox_rootfs, *words) as agent:
        agent.write("p", pod("p", sh("c", WAIT)))
        agent.wait_ready("p")
        certificate = authority.client("other", "/O=system:masters/CN=admin")
        yield agent, KubeletClient(HOST, PORT, agent.node.root / "kubelet" / "serving.pem", certificate)


def test_the_process_with_the_port_comes_back(other: tuple[AgentNode, KubeletClient]) -> None:
    agent, master = other
    [keeper] = children(agent.node.pid)
    [web] = children(keeper)
    os.kill(web, signal.SIGKILL)
    _wait(lambda: children(keeper) not in ([], [web]) and master.ask("/healthz")[0] == 200)
    assert "the web process ended with -9" in agent.node.said.read_text()


def test_it_goes_and_comes_with_the_agent(other: tuple[AgentNode, KubeletClient]) -> None:
    agent, master = other
    [keeper] = children(agent.node.pid)
    held = [os.pidfd_open(pid) for pid in (keeper, *children(keeper))]
    started = agent.pods()["p"]["status"]["containerStatuses"][0]["state"]
    agent.node.kill()
    for pidfd in held:
        _wait(lambda pidfd=pidfd: _has_ended(pidfd))
        os.close(pidfd)
    agent.node.start()
    _wait(lambda: master.ask("/healthz")[0] == 200)  # its certificate is the same
    assert agent.pods()["p"]["status"]["containerStatuses"][0]["state"] == started
    [keeper] = children(agent.node.pid)
    assert agent.node.stop() == 0
    assert not Path(f"/proc/{keeper}").exists()
    agent.node.start()


def _has_ended(pidfd: int) -> bool:
    return bool(select.select([pidfd], [], [], 0)[0])


def _wait(true: Any) -> None:
    last = time.monotonic() + 60
    while True:
        try:
            if true():
                return
        except OSError:
            pass
        assert time.monotonic() < last
        time.sleep(0.05)
