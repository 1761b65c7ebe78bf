"""A node that shuts down: its pods end in their order, each within its grace, and those of files are there again."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.container.leaks import CGROUP_ROOT
from tests.support.container.runner import wait_for
from tests.support.node.agent import SLEEP, an_agent, pod, sh
from tests.support.node.logind import Logind, a_bus

CRITICAL = 2_000_000_000
WORDS = ("--shutdown-on-term", "--shutdown-grace-period", "120", "--shutdown-grace-period-critical-pods", "60")


def test_pods_end_with_the_node_and_come_again(tmp_path: Path, busybox_rootfs: Path) -> None:
    seen = tmp_path / "seen"
    seen.mkdir()
    mount = {"name": "seen", "mountPath": "/seen"}
    volumes = [{"name": "seen", "hostPath": {"path": str(seen)}}]

    def ends(name: str, least: str) -> dict[str, object]:
        """It writes down that it ended, and takes its time."""
        script = f"trap '{least} echo {name} >>/seen/order; exit 0' TERM; while :; do sleep 0.05; done"
        return sh("c", script, volumeMounts=[mount])

    with an_agent(tmp_path, busybox_rootfs, *WORDS) as agent:
        agent.write("web", pod("web", ends("web", "sleep 1;"), volumes=volumes))
        agent.write("system", pod("system", ends("system", ""), volumes=volumes, priority=CRITICAL))
        deaf = sh("c", "trap '' TERM; while :; do sleep 0.05; done")
        agent.write("deaf", pod("deaf", deaf, terminationGracePeriodSeconds=1))
        for name in ("web", "system", "deaf"):
            agent.wait_ready(name)
        assert agent.node.stop() == 0, agent.node.said.read_text()
        assert (seen / "order").read_text() == "web\nsystem\n"
        wait_for(lambda: not _processes(), 60, "no process is left")
        agent.node.start()
        for name in ("web", "system", "deaf"):
            found = agent.wait_ready(name)["status"]
            assert found["containerStatuses"][0]["restartCount"] >= 1 and "reason" not in found
        agent.write("web", pod("web", sh("c", SLEEP)))
        agent.wait_ready("web")


def test_the_machine_s_shutdown_waits_for_pods(
    tmp_path: Path, busybox_rootfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As logind tells of it; where there is none the status says so."""
    with a_bus(tmp_path) as address:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        words = WORDS[1:]
        with an_agent(tmp_path, busybox_rootfs, *words) as agent:
            agent.write("web", pod("web", sh("c", SLEEP)))
            agent.wait_ready("web")
            wait_for(lambda: "does not wait for pods" in agent.run("status").out, 60, "it is said")
            assert agent.node.stop() == 0
            its = Logind(address, 600)
            agent.node.start()
            its.wait_held()
            assert agent.run("status").rc == 0
            its.tell(begins=True)
            its.wait_held(False)
            status = agent.pods()["web"]["status"]
            assert (status["phase"], status["reason"]) == ("Failed", "Terminated")
            agent.write("late", pod("late", sh("c", SLEEP)))
            agent.wait(lambda pods: pods.get("late", {}).get("status", {}).get("reason") == "NodeShutdown")
            its.tell(begins=False)
            agent.wait_ready("late")
            again = agent.wait_ready("web")["status"]
            assert again["containerStatuses"][0]["restartCount"] == 1 and "reason" not in again
            assert "DisruptionTarget" not in {c["type"] for c in again["conditions"]}
            its.wait_held()
            assert agent.node.stop() == 0
            its.wait_held(False)
            its.close()
            agent.node.start()
            agent.wait_ready("web")


def test_pods_run_on_where_the_agent_can_not_start(tmp_path: Path, busybox_rootfs: Path) -> None:
    """That is no end of the node; nor is the end of an operator's terminal."""
    with an_agent(tmp_path, busybox_rootfs, *WORDS) as agent:
        agent.write("web", pod("web", sh("c", SLEEP)))
        before = agent.wait_ready("web")["status"]["containerStatuses"][0]["containerID"]
        assert agent.node.daemon is not None
        os.kill(agent.node.pid, signal.SIGHUP)
        assert agent.node.daemon.wait() == 0
        (path := agent.node.socket).unlink(missing_ok=True)
        path.mkdir()  # found when the agent runs already
        agent.node.start(wait=False)
        assert agent.node.daemon.wait() != 0
        path.rmdir()
        agent.node.start()
        found = agent.wait_ready("web")["status"]["containerStatuses"][0]
        assert (found["containerID"], found["restartCount"]) == (before, 0), agent.node.said.read_text()


def _processes() -> list[str]:
    found = []
    for directory, _, _ in os.walk(CGROUP_ROOT / "kubepods"):
        with suppress(OSError):  # it is gone meanwhile
            found += Path(directory, "cgroup.procs").read_text().split()
    return found
