"""The daemon is killed at every point of every change, and the next one makes the best of it: what was promised is
there, what was not is gone, nothing is there twice, and the same request leads to where the first one was to.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from pyrun import cri_api as v1
from pyrun.errors import DeadlineExceeded, FailedPrecondition, PyrunError, Unavailable
from pyrun.pod.ends import read_exits
from tests.support.container.leaks import CGROUP_ROOT
from tests.support.container.runner import runtime_argv
from tests.support.cri.node import BUSYBOX, Node, a_node
from tests.support.pods.nets import links

STUBBORN = "trap '' TERM; echo started; while :; do sleep 0.02; done"


@pytest.fixture
def node(tmp_path: Path, busybox_rootfs: Path) -> Iterator[Node]:
    with a_node(tmp_path, busybox_rootfs) as found:
        yield found


class Change:
    """One RPC that changes something. ready: makes what it needs and gives its request; after: looks at what it has led
    to, when it has been made again. prefixes: of the points that are its own."""

    rpc = ""
    prefixes: tuple[str, ...] = ()

    def ready(self, node: Node) -> dict[str, Any]:
        return {}

    def after(self, node: Node) -> None:
        raise NotImplementedError


class RunPod(Change):
    rpc, prefixes = "RunPodSandbox", ("run:",)

    def ready(self, node: Node) -> dict[str, Any]:
        options = {"security_context": {"namespace_options": {"pid": "POD"}}}
        return {"config": node.pod_config(linux=options)}

    def after(self, node: Node) -> None:
        (pod,) = node.call("ListPodSandbox").items
        assert pod.state == v1.SANDBOX_READY
        assert node.call("PodSandboxStatus", pod_sandbox_id=pod.id).status.network.ip
        node.run(pod.id, script="echo one; exit 3")
        (c,) = node.call("ListContainers").containers
        assert node.wait_state(c.id, v1.CONTAINER_EXITED).exit_code == 3


class Create(Change):
    rpc, prefixes = "CreateContainer", ("create:",)

    def ready(self, node: Node) -> dict[str, Any]:
        pod = node.run_pod()
        other = node.container_config(
            mounts=[{"container_path": "/image", "readonly": True, "image": {"image": BUSYBOX}}]
        )
        return {"pod_sandbox_id": pod, "config": other, "sandbox_config": node.pod_config()}

    def after(self, node: Node) -> None:
        (c,) = node.call("ListContainers").containers
        node.call("StartContainer", container_id=c.id)
        wait_for(lambda: node.log() == ["started"])
        (pod,) = node.call("ListPodSandbox").items
        assert pod.state == v1.SANDBOX_READY


class Start(Change):
    rpc, prefixes = "StartContainer", ("start:",)

    def ready(self, node: Node) -> dict[str, Any]:
        return {"container_id": node.create(node.run_pod())}

    def after(self, node: Node) -> None:
        (c,) = node.call("ListContainers").containers
        assert c.state == v1.CONTAINER_RUNNING
        wait_for(lambda: node.log() == ["started"])


class Stop(Change):
    rpc, prefixes = "StopContainer", ("stop:", "end:")
    grace, script, codes = 5, "", (7,)

    def ready(self, node: Node) -> dict[str, Any]:
        words = {"script": self.script} if self.script else {}
        id = node.run(node.run_pod(), **words)
        wait_for(lambda: node.log() == ["started"])
        return {"container_id": id, "timeout": self.grace}

    def after(self, node: Node) -> None:
        (c,) = node.call("ListContainers").containers
        status = node.wait_state(c.id, v1.CONTAINER_EXITED)
        assert status.exit_code in self.codes and status.reason == "Error"
        assert node.log() == (["started", "bye"] if status.exit_code == 7 else ["started"])


class Kill(Stop):
    grace, script, codes = 0, STUBBORN, (137,)


class Remove(Change):
    rpc, prefixes = "RemoveContainer", ("remove:",)

    def ready(self, node: Node) -> dict[str, Any]:
        return {"container_id": node.run(node.run_pod(), script="exit 0")}

    def after(self, node: Node) -> None:
        assert not node.call("ListContainers").containers


class RemoveRunning(Remove):
    def ready(self, node: Node) -> dict[str, Any]:
        return {"container_id": node.run(node.run_pod(), script=STUBBORN)}


class StopPod(Change):
    rpc, prefixes = "StopPodSandbox", ("stopp:",)

    def ready(self, node: Node) -> dict[str, Any]:
        options = {"security_context": {"namespace_options": {"pid": "POD"}}}
        pod = node.run_pod(linux=options)
        node.run(pod, script=STUBBORN)
        return {"pod_sandbox_id": pod}

    def after(self, node: Node) -> None:
        (pod,) = node.call("ListPodSandbox").items
        assert pod.state == v1.SANDBOX_NOTREADY
        (c,) = node.call("ListContainers").containers
        assert node.status(c.id).exit_code == 137


class RemovePod(Change):
    rpc, prefixes = "RemovePodSandbox", ("rmp:", "stopp:", "remove:", "stop:", "end:")

    def ready(self, node: Node) -> dict[str, Any]:
        pod = node.run_pod()
        node.run(pod, script=STUBBORN)
        return {"pod_sandbox_id": pod}

    def after(self, node: Node) -> None:
        assert not node.call("ListPodSandbox").items
        assert not node.call("ListContainers").containers


CHANGES = (RunPod, Create, Start, Stop, Kill, Remove, RemoveRunning, StopPod, RemovePod)


def wait_for(true: Callable[[], bool], patience_s: float = 60.0) -> None:
    last = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < last
        time.sleep(0.01)


def clear(node: Node) -> None:
    node.clear()
    for log in node.logs.glob("*/*"):
        log.unlink()


def points_of(node: Node, change: Change, path: Path) -> list[str]:
    """Those that the change reaches, in order."""
    node.fork()
    request = change.ready(node)
    node.kill()
    node.fork(points=path)
    node.call(change.rpc, **request)
    change.after(node)
    clear(node)
    return list(dict.fromkeys(name for name in path.read_text().splitlines() if name.startswith(change.prefixes)))


@pytest.mark.parametrize("kind", CHANGES)
def test_killed_at_each_point(node: Node, tmp_path: Path, kind: type[Change]) -> None:
    change = kind()
    points = points_of(node, change, tmp_path / "points")
    assert len(points) >= 2
    for point in points:
        request = change.ready(node)
        node.kill()
        node.fork(die_at=point)
        with pytest.raises(Unavailable):
            node.call(change.rpc, **request)
        node.died()
        node.fork()
        node.check()
        node.call(change.rpc, **request)
        change.after(node)
        node.check()
        clear(node)


PLUGINS: tuple[tuple[type[Change], str], ...] = (
    (RunPod, "run:network"),
    (RunPod, "run:supervisor"),
    (StopPod, "stopp:supervisor gone"),
)
PLUGINS += ((StopPod, "stopp:network gone"), (RemovePod, "stopp:network gone"))


def test_killed_with_plugins_of_cni(node: Node) -> None:
    """Their addresses and links are given back too."""
    ipam = {"type": "host-local", "dataDir": str(node.path / "ipam"), "ranges": [[{"subnet": "10.99.0.0/24"}]]}
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipam": ipam}
    (node.path / "net.d").mkdir()
    conflist = {"cniVersion": "1.0.0", "name": "test", "plugins": [bridge]}
    (node.path / "net.d" / "10-test.conflist").write_text(json.dumps(conflist))
    (node.path / "pyrun.toml").write_text(f'cni_conf_dir = "{node.path}/net.d"\n')
    node.config, node.plugins = str(node.path / "pyrun.toml"), True
    node.fork()
    for kind, point in PLUGINS:
        change = kind()
        request = change.ready(node)
        node.kill()
        node.fork(die_at=point)
        with pytest.raises(Unavailable):
            node.call(change.rpc, **request)
        node.died()
        node.fork()
        node.check()
        ready = [pod for pod in node.call("ListPodSandbox").items if pod.state == v1.SANDBOX_READY]
        assert len(ready) == len(addresses(node)) == len([name for name in links() if name.startswith("veth")])
        node.call(change.rpc, **request)
        change.after(node)
        clear(node)
        assert not addresses(node) and links() == {"lo", "cni0"}


def addresses(node: Node) -> list[str]:
    return [path.name for path in (node.path / "ipam" / "test").glob("10.*")]


ROUNDS = int(os.environ.get("PYRUN_TEST_ROUNDS", "15"))


def a_life(node: Node, promised: list[str]) -> None:
    """All of a pod's changes. promised: what the daemon has said that there is."""
    pod = node.run_pod(linux={})
    promised.append(pod)
    ids = [node.create(pod, name) for name in ("one", "two")]
    promised += ids
    for id in ids:
        node.call("StartContainer", container_id=id)
    node.call("ExecSync", container_id=ids[0], cmd=["true"])
    node.call("StopContainer", container_id=ids[0], timeout=2)
    promised.clear()
    node.call("RemoveContainer", container_id=ids[0])
    node.call("StopPodSandbox", pod_sandbox_id=pod)
    node.call("RemovePodSandbox", pod_sandbox_id=pod)


def test_killed_at_any_moment(node: Node) -> None:
    """Between the points, too: in the middle of a plan, of a transaction, of an answer."""
    random = Random(os.environ.get("PYRUN_TEST_SEED", "recovery"))
    node.fork()
    begun = time.monotonic()
    a_life(node, [])
    length = time.monotonic() - begun
    for round in range(ROUNDS):
        node.kill()
        node.fork()
        moment, promised = random.uniform(0, length), list[str]()
        timer = threading.Timer(moment, os.kill, (node.pid, signal.SIGKILL))
        timer.start()
        with contextlib.suppress(Unavailable):
            a_life(node, promised)
        timer.join()
        node.died()
        node.fork()
        found = {pod.id for pod in node.call("ListPodSandbox").items}
        found |= {c.id for c in node.call("ListContainers").containers}
        assert found.issuperset(promised), f"round {round}, {moment:.4f} s of {length:.4f}"
        node.check()
        node.clear()


# --- other ends -------------------------------------------------------------------------------------------------------


def supervisor_of(pod: str) -> int:
    members = Path(f"/sys/fs/cgroup/pyrun/{pod}/pod/cgroup.procs")
    wait_for(lambda: len(members.read_text().split()) == 1, 60)  # what began something there is on its way out
    return int(members.read_text())


def wait_not_ready(node: Node, pod: str) -> None:
    wait_for(lambda: node.call("PodSandboxStatus", pod_sandbox_id=pod).status.state == v1.SANDBOX_NOTREADY)


@pytest.mark.parametrize("while_down", [False, True])
def test_supervisor_killed(node: Node, while_down: bool) -> None:
    """Nobody hears of its containers any more: they are ended, and told of."""
    node.fork()
    pod, other = node.run_pod(), node.run_pod("other")
    ended = node.run(pod, "ended", "exit 5")
    node.wait_state(ended, v1.CONTAINER_EXITED)
    running, created = node.run(pod), node.create(pod, "created")
    bystander = node.run(other, "c", pod_name="other")
    if while_down:
        node.kill()
    os.kill(supervisor_of(pod), signal.SIGKILL)
    if while_down:
        node.fork()
    wait_not_ready(node, pod)
    for id in (running, created):
        status = node.wait_state(id, v1.CONTAINER_EXITED)
        assert (status.exit_code, status.reason) == (255, "Unknown") and "supervisor" in status.message
    assert node.status(ended).exit_code == 5
    assert node.status(bystander).state == v1.CONTAINER_RUNNING
    node.check()
    with pytest.raises(FailedPrecondition):
        node.create(pod, "more")


def test_ended_while_the_daemon_and_then_the_supervisor_were_gone(node: Node) -> None:
    """What the supervisor has recorded counts, though nobody is there to tell it."""
    node.fork()
    pod = node.run_pod()
    id = node.run(pod, script="read x < /pipe/fifo; exit 6", mounts=pipe(node))
    node.kill()
    (node.path / "fifo").write_text("go\n")
    exits = node.state / "pods" / pod / "exits"
    wait_for(lambda: any(read_exits(str(exits.parent))))
    os.kill(supervisor_of(pod), signal.SIGKILL)
    node.fork()
    status = node.wait_state(id, v1.CONTAINER_EXITED)
    assert (status.exit_code, status.reason) == (6, "Error")
    wait_not_ready(node, pod)
    node.check()


def test_ended_while_the_daemon_was_gone(node: Node) -> None:
    node.fork()
    pod = node.run_pod()
    id = node.run(pod, script="sleep 0.3; echo last; exit 4")
    node.kill()
    wait_for(lambda: bool(read_exits(str(node.state / "pods" / pod))))
    recorded = time.time_ns()
    node.fork()
    status = node.status(id)
    assert (status.state, status.exit_code, node.log()) == (v1.CONTAINER_EXITED, 4, ["last"])
    assert status.started_at + 0.1e9 < status.finished_at < recorded, "its own end, and no daemon's start"
    node.check()


def test_execs_that_are_killed_leave_no_cgroups(node: Node) -> None:
    """Nor do those that leave something running, once that has ended; nor those of a daemon that was replaced."""
    node.start()
    id = node.run(node.run_pod())
    (pod,) = node.call("ListPodSandbox").items
    cgroup = CGROUP_ROOT / "pyrun" / pod.id / id

    def left() -> list[str]:
        return [path.name for path in cgroup.glob("exec-*")]

    for _ in range(3):
        with pytest.raises(DeadlineExceeded):
            node.call("ExecSync", container_id=id, cmd=["sleep", "4321"], timeout=1)
        wait_for(lambda: not left(), 60)
    (cgroup / "exec-of-an-earlier").mkdir()
    node.kill()
    node.start()
    node.call("ExecSync", container_id=id, cmd=["sh", "-c", "sleep 0.5 >/dev/null 2>&1 & exit 0"])
    wait_for(lambda: not left(), 60)
    node.call("ExecSync", container_id=id, cmd=["sh", "-c", "sleep 4321 >/dev/null 2>&1 & exit 0"])
    assert len(left()) == 1


def test_after_a_reboot(node: Node) -> None:
    """By the records: another boot id. All of the pods is swept, and they are told of as not ready."""
    node.fork()
    pod = node.run_pod()
    running, ended = node.run(pod), node.run(pod, "ended", "exit 3")
    node.wait_state(ended, v1.CONTAINER_EXITED)
    node.check()
    node.kill()
    path = node.root / "pods" / pod / "pod.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"boot_id": "another"}))
    node.fork()
    assert node.call("PodSandboxStatus", pod_sandbox_id=pod).status.state == v1.SANDBOX_NOTREADY
    status = node.wait_state(running, v1.CONTAINER_EXITED)
    assert (status.exit_code, status.reason) == (255, "Unknown")
    assert node.status(ended).exit_code == 3
    node.check()
    again = node.run_pod(metadata={"name": "p", "namespace": "default", "uid": "uid-p", "attempt": 1})
    assert node.wait_state(node.run(again, script="exit 0"), v1.CONTAINER_EXITED).exit_code == 0


def test_what_nobody_has_a_record_of(node: Node) -> None:
    """Records lost, or damaged: what is left of their pods goes, the others go on."""
    node.fork()
    pods = [node.run_pod(name) for name in ("one", "two", "three")]
    for pod in pods:
        node.run(pod)
    kept = node.run(pods[2], "kept")
    node.kill()
    shutil.rmtree(node.root / "pods" / pods[0])
    (node.root / "pods" / pods[1] / "pod.json").write_bytes(b'{"format":1,"id"')
    (node.root / "pods" / pods[2] / "debris").mkdir()
    node.fork()
    assert [pod.id for pod in node.call("ListPodSandbox").items] == [pods[2]]
    assert node.status(kept).state == v1.CONTAINER_RUNNING
    (node.root / "pods" / pods[2] / "debris").rmdir()
    node.check()


def test_two_daemons_on_one_root(node: Node, tmp_path: Path) -> None:
    node.start()
    id = node.run(node.run_pod())
    for words in (["--state", str(tmp_path / "other")], ["--root", str(tmp_path / "other")]):
        argv = [*runtime_argv(), "cri", "--root", str(node.root), "--state", str(node.state), *words]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1 and "another pyrun cri" in done.stderr
    assert node.status(id).state == v1.CONTAINER_RUNNING
    node.check()


def test_a_signal_ends_it_and_containers_run_on(node: Node) -> None:
    node.start()
    id = node.run(node.run_pod())
    assert node.stop() == 0
    node.start()
    assert node.status(id).state == v1.CONTAINER_RUNNING
    assert node.call("ExecSync", container_id=id, cmd=["echo", "still"]).stdout == b"still\n"
    node.check()


# --- many -------------------------------------------------------------------------------------------------------------

COUNT = int(os.environ.get("PYRUN_TEST_PODS", "30"))
WRITER = "i=0; while :; do i=$((i+1)); echo $i; usleep 200000; done"


def test_many_pods_log_while_the_daemon_is_replaced(node: Node) -> None:
    node.start()
    node.kill()
    alone = node.start()
    names = [f"p{i}" for i in range(COUNT)]
    pods = {name: node.run_pod(name) for name in names}
    ids = {name: node.run(pod, script=WRITER, pod_name=name) for name, pod in pods.items()}
    pids = {name: info(node, id)["pid"] for name, id in ids.items()}
    node.kill()
    before = {name: len(node.log(pod=name)) for name in names}
    blocked = set(names)
    last = time.monotonic() + 60
    while blocked and time.monotonic() < last:
        time.sleep(0.2)
        blocked = {name for name in blocked if len(node.log(pod=name)) <= before[name]}
    took = node.start()
    listed = node.call("ListContainers").containers
    print(f"{COUNT} pods: answers {took:.2f} s after it was started; without pods {alone:.2f} s")
    assert not blocked
    assert {c.id for c in listed if c.state == v1.CONTAINER_RUNNING} == set(ids.values())
    assert {name: info(node, id)["pid"] for name, id in ids.items()} == pids
    node.check()
    for name, pod in pods.items():
        node.call("StopPodSandbox", pod_sandbox_id=pod)
        lines = node.log(pod=name)
        assert lines == [str(i + 1) for i in range(len(lines))] and len(lines) > before[name]
    assert took < 10  # how long it took is told above: a time is for a benchmark on a quiet machine to judge


def info(node: Node, id: str) -> Any:
    return json.loads(node.call("ContainerStatus", container_id=id, verbose=True).info["info"])


# --- full disks -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[Path]:
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=700", "small", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def fill(directory: Path) -> Path:
    """A file that leaves not one block."""
    path = directory / "ballast"
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass
    return path


def test_root_is_full(tmp_path: Path, busybox_rootfs: Path) -> None:
    """What is there can be ended and removed; what is new is refused, with nothing left of it; later all goes on."""
    (tmp_path / "root").mkdir()
    with small_disk(tmp_path / "root", 96), a_node(tmp_path, busybox_rootfs) as node:
        node.fork()
        pod, other = node.run_pod(), node.run_pod("other")
        running, created, ends = node.run(pod), node.create(pod, "created"), node.run(pod, "ends", "sleep 0.3; exit 4")
        ballast = fill(node.root)
        with pytest.raises(PyrunError, match="(?i)no space|full"):
            node.run_pod("new")
        with pytest.raises(PyrunError, match="(?i)no space|full"):
            node.create(pod, "new")
        with pytest.raises(PyrunError, match="(?i)no space|full"):
            node.call("StartContainer", container_id=created)
        assert node.status(created).state == v1.CONTAINER_CREATED
        assert node.wait_state(ends, v1.CONTAINER_EXITED).exit_code == 4
        node.call("StopContainer", container_id=running, timeout=5)
        assert node.status(running).exit_code == 7
        node.kill()
        node.fork()
        assert node.status(running).exit_code == 7 and node.status(ends).exit_code == 4
        node.call("RemoveContainer", container_id=ends)
        node.call("RemovePodSandbox", pod_sandbox_id=other)
        ballast.unlink()
        node.call("RemoveContainer", container_id=running)
        node.call("StartContainer", container_id=created)
        assert node.status(created).state == v1.CONTAINER_RUNNING
        node.run_pod("new")
        node.check()


def test_state_is_full(tmp_path: Path, busybox_rootfs: Path) -> None:
    """/run, that is. Ends are recorded and told, what is there can be removed, and later all goes on."""
    (tmp_path / "state").mkdir()
    with small_disk(tmp_path / "state", 4), a_node(tmp_path, busybox_rootfs) as node:
        node.fork()
        pod, other = node.run_pod(), node.run_pod("other")
        running, ends = node.run(pod), node.run(pod, "ends", "sleep 0.3; exit 4")
        ballast = fill(node.state)
        with pytest.raises(PyrunError, match="(?i)no space|full"):
            node.run_pod("new")
        with pytest.raises(PyrunError, match="(?i)no space|full"):
            node.create(pod, "new")
        node.kill()
        wait_for(lambda: bool(read_exits(str(node.state / "pods" / pod))))
        node.fork()
        assert node.wait_state(ends, v1.CONTAINER_EXITED).exit_code == 4
        node.call("StopContainer", container_id=running, timeout=5)
        assert node.status(running).exit_code == 7
        node.call("RemovePodSandbox", pod_sandbox_id=other)
        ballast.unlink()
        node.run(pod, "new")
        node.check()


def test_log_directory_is_full(node: Node, tmp_path: Path) -> None:
    node.fork()
    pod = node.run_pod()
    with small_disk(node.logs, 2):
        id = node.run(pod, script="read x < /pipe/fifo; echo 1; echo 2; exit 3", mounts=pipe(node))
        ballast = fill(node.logs)
        (node.path / "fifo").write_text("go\n")
        time.sleep(0.3)
        assert node.status(id).state in (v1.CONTAINER_RUNNING, v1.CONTAINER_EXITED)
        ballast.unlink()
        assert node.wait_state(id, v1.CONTAINER_EXITED, 15).exit_code == 3
        assert node.log() == ["1", "2"]
        node.call("RemovePodSandbox", pod_sandbox_id=pod)
    node.check()


def pipe(node: Node) -> list[dict[str, Any]]:
    os.mkfifo(node.path / "fifo")
    return [{"container_path": "/pipe", "host_path": str(node.path)}]
