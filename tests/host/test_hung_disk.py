"""A directory of the host whose server has died, of NFS or FUSE: threads hang in the kernel, and nothing else does."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyrun.cri import daemon
from pyrun.pod.stuck import collect_stuck
from tests.support.container.disk import dead_fuse, unmount
from tests.support.container.leaks import CGROUP_ROOT
from tests.support.container.runner import wait_for
from tests.support.cri.node import Daemon, a_node
from tests.support.node.agent import SLEEP, AgentNode, an_agent, pod, sh

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


FEW = "import os; from pyrun.cli.main import main; from pyrun.cri import daemon; daemon.THREADS = 2; os._exit(main())"


def test_dead_directories_take_no_thread_from_others(tmp_path: Path, busybox_rootfs: Path) -> None:
    """In whatever way they are asked for: more pods hang than there are threads for all else."""
    dead = tmp_path / "dead"

    def pods() -> Iterator[dict[str, Any]]:
        for number in range(2):
            for name, path, type, mount in (
                ("typed", dead / f"t{number}", "Directory", {}),
                ("plain", dead / f"p{number}", "", {}),
                ("below", dead, "", {"subPath": str(number)}),
            ):
                c = sh("c", SLEEP, volumeMounts=[{"name": "v", "mountPath": "/v", **mount}])
                volume = {"name": "v", "hostPath": {"path": str(path), "type": type}}
                yield pod(f"{name}{number}", c, volumes=[volume])

    with a_node(tmp_path, busybox_rootfs) as node:
        agent = AgentNode(node)
        argv = (sys.executable, "-c", FEW, *node.words, "--root", str(node.root), "--state", str(node.state))
        with node.said.open("ab") as said:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        node.daemon = Daemon(process.pid, process)
        with dead_fuse(dead):
            for made in pods():
                agent.write(made["metadata"]["name"], made)
            wait_for(lambda: threads_in_stat(node.pid) == 6, PATIENCE_S, "their threads")
            agent.write("web", pod("web", sh("c", SLEEP)))
            agent.wait_ready("web")
        agent.clear()
    unmount(tmp_path / "state" / "volumes")


# argv: a directory. It has a descriptor of it, of which it asks what its file system has left.
BY_DESCRIPTOR = "import os, sys; os.fstatvfs(os.open(sys.argv[1], os.O_PATH))"


@pytest.mark.parametrize(("how", "told_of"), [("path", "{} (fuse) mounted"), ("descriptor", ", on {} (fuse)")])
def test_who_waits_in_the_kernel_is_named_with_where(tmp_path: Path, how: str, told_of: str) -> None:
    """As it is told of a container that was killed and does not end."""
    cgroup, dead = CGROUP_ROOT / "stuck" / "below", tmp_path / "dead"
    cgroup.mkdir(parents=True)
    try:
        with dead_fuse(dead):
            words = {"path": ["stat", f"{dead}/file"], "descriptor": [sys.executable, "-Sc", BY_DESCRIPTOR, str(dead)]}
            script = f'echo $$ >{cgroup}/cgroup.procs; exec "$@"'
            process = subprocess.Popen(["sh", "-c", script, "sh", *words[how]], stdout=-3, stderr=-3)
            wait_for(lambda: bool(collect_stuck(str(cgroup.parent))), PATIENCE_S, "it waits")
            (told,) = collect_stuck(str(cgroup.parent))
            assert f" (pid {process.pid}) in " in told and told.endswith(told_of.format(dead)), told
        process.wait(PATIENCE_S)
        assert not collect_stuck(str(cgroup.parent))
    finally:
        cgroup.rmdir()
        cgroup.parent.rmdir()


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
