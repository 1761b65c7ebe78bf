"""The process that serves the kubelet's API: it comes back, and it ends with the agent."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyrun.kubelet.start import Door, Wanted
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
    """As often as it is killed, with its rights, its certificate and what it asks; and it ends with the agent."""
    agent, master = other
    [first] = children(agent.node.pid)
    before = _rights(first)
    for time_ in (1, 2):
        [web] = children(agent.node.pid)
        os.kill(web, signal.SIGKILL)
        _wait(lambda web=web: children(agent.node.pid) not in ([], [web]) and master.ask("/healthz")[0] == 200)
        assert [item["metadata"]["name"] for item in master.json("/pods")["items"]] == ["p"]
        assert agent.node.said.read_text().count("ended with -9; it is started again in") == time_
    [last] = children(agent.node.pid)
    assert _rights(last) == before and before["Uid"][0] != "0" and before["CapEff"] == ["0" * 16]
    assert _descriptors(last) == {"socket", "anon_inode", "null", "log"}
    held = os.pidfd_open(last)
    agent.node.kill()
    _wait(lambda: _has_ended(held))
    os.close(held)
    agent.node.start()


def test_why_it_does_not_come_back_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """As when the certificate was taken away meanwhile."""
    lost = str(tmp_path / "lost.pem")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    door = Door(
        Wanted(str(tmp_path), "node", (), tls=(lost, lost)), ours, theirs, {"api": socket.create_server((HOST, 0))}
    )
    try:
        door.begin_again()
        assert door.program is not None and door.program.wait(60) == 1
    finally:
        door.pid = 0
        door.close()
    said = capfd.readouterr().err
    assert said.startswith(f"pyrun: kubelet: --tls-cert-file {lost}, ") and said.count("\n") == 1, said


def _rights(pid: int) -> dict[str, list[str]]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    facts = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    return {name: facts[name] for name in ("Uid", "Gid", "Groups", "CapEff", "CapPrm", "CapBnd", "NoNewPrivs")}


def _descriptors(pid: int) -> set[str]:
    """Their kinds."""
    found = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            where = os.readlink(fd)
        except FileNotFoundError:  # a connection that has ended meanwhile
            continue
        found.add(where.partition(":")[0] if ":" in where else where.rpartition("/")[2].rpartition(".")[2])
    return found


def test_it_goes_and_comes_with_the_agent(other: tuple[AgentNode, KubeletClient]) -> None:
    agent, master = other
    [web] = children(agent.node.pid)
    held = os.pidfd_open(web)
    started = agent.pods()["p"]["status"]["containerStatuses"][0]["state"]
    agent.node.kill()
    _wait(lambda: _has_ended(held))
    os.close(held)
    agent.node.start()
    _wait(lambda: master.ask("/healthz")[0] == 200)  # its certificate is the same
    assert agent.pods()["p"]["status"]["containerStatuses"][0]["state"] == started
    [web] = children(agent.node.pid)
    assert agent.node.stop() == 0
    assert not Path(f"/proc/{web}").exists()
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
