"""A directory of the host whose server has died, of NFS or FUSE: threads hang in the kernel, and nothing else does."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from pyrun.cri import daemon
from tests.support.container.disk import dead_fuse
from tests.support.container.runner import wait_for
from tests.support.cri.node import a_node
from tests.support.node.agent import SLEEP, an_agent, pod, sh

PATIENCE_S = 60.0
HANGING = 3


def hanging(at: Path) -> list[dict[str, Any]]:
    """Pods that want it."""
    return [
        pod(
            f"hung{number}",
            sh("c", SLEEP, volumeMounts=[{"name": "v", "mountPath": "/v"}]),
            volumes=[{"name": "v", "hostPath": {"path": f"{at}/{number}", "type": "Directory"}}],
        )
        for number in range(HANGING)
    ]


def threads_in_stat(pid: int) -> int:
    """How many of a process wait for a FUSE server."""
    count = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            count += (task / "wchan").read_text().startswith(("request_wait_answer", "fuse"))
    return count


def test_a_dead_directory_holds_up_no_other_pod_and_no_end(tmp_path: Path, busybox_rootfs: Path) -> None:
    with an_agent(tmp_path, busybox_rootfs) as agent:
        with dead_fuse(tmp_path / "dead"):
            for made in hanging(tmp_path / "dead"):
                agent.write(made["metadata"]["name"], made)
            wait_for(lambda: threads_in_stat(agent.node.pid) == HANGING, PATIENCE_S, "their threads")
            agent.write("web", pod("web", sh("c", SLEEP)))
            id = agent.wait_ready("web")["status"]["containerStatuses"][0]["containerID"]
            assert agent.node.stop() == 0
            said = agent.node.said.read_text()
            assert "pyrun.node.volumes.host_path:" in said and f"check_host_path(), {HANGING} times" in said
            agent.node.start()
            wait_for(lambda: threads_in_stat(agent.node.pid) == HANGING, PATIENCE_S, "their threads")
            assert agent.wait_ready("web")["status"]["containerStatuses"][0]["containerID"] == id
            agent.write("late", pod("late", sh("c", SLEEP)))
            agent.wait_ready("late")
        agent.wait(lambda pods: all(refused(agent.run("describe", f"hung{n}").out) for n in range(HANGING)))
        assert agent.pods()["hung0"]["status"]["phase"] == "Pending"


def test_a_start_that_hangs_ends(tmp_path: Path, busybox_rootfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the pods' records: a signal gives it a time."""
    monkeypatch.setattr(daemon, "FINISH_S", 0.1)
    with a_node(tmp_path, busybox_rootfs) as node:
        with dead_fuse(node.root / "pods"):
            node.fork(wait=False)
            wait_for(lambda: threads_in_stat(node.pid) == 1, PATIENCE_S, "its thread")
            assert node.stop() == 1
        assert "before it had started" in node.said.read_text()
        (node.root / "pods").rmdir()
        node.start()


def refused(described: str) -> bool:
    return "hostPath type check failed" in described
