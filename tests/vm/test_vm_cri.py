"""`pyrun cri` with the systemd cgroup driver: pods and containers are units, and none stays."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pyrun import cri_api as v1
from pyrun.errors import DeadlineExceeded, PyrunError
from pyrun.runtime import systemd
from tests.support.container.disk import unmount
from tests.support.container.leaks import CGROUP_ROOT
from tests.support.container.runner import wait_for
from tests.support.cri.node import OWN_PIDS, a_node
from tests.support.cri.systemd_node import SystemdNode, units
from tests.support.node.agent import SLEEP, AgentNode, sh
from tests.support.node.agent import pod as make_pod
from tests.support.vm.cgroup import MIB

SLICE = "testpods-burstable-podu1.slice"
EATS = "head -c 100000000 /dev/zero | tail"
PATH = f"/testpods.slice/testpods-burstable.slice/{SLICE}"  # as a kubelet names it
PATIENCE_S = 60.0
DAY_S = 86400


@pytest.fixture
def node(tmp_path: Path, busybox_rootfs: Path) -> Iterator[SystemdNode]:
    with a_node(tmp_path, busybox_rootfs, SystemdNode) as found:
        assert isinstance(found, SystemdNode)
        yield found
    assert units() == set()
    subprocess.run(["systemctl", "stop", "testpods.slice"], check=True)  # a parent is its kubelet's to remove


@pytest.fixture
def clock() -> Iterator[None]:
    """Puts the clock right again."""
    begin, wall = time.monotonic(), time.time()
    yield
    time.clock_settime(time.CLOCK_REALTIME, wall + time.monotonic() - begin)


def set_clock(seconds: int) -> None:
    time.clock_settime(time.CLOCK_REALTIME, time.time() + seconds)


def show(unit: str, *names: str) -> dict[str, str]:
    argv = ["systemctl", "show", unit, *(f"--property={name}" for name in names)]
    rows = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    return dict(row.split("=", 1) for row in rows)


def limited(**resources: Any) -> dict[str, Any]:
    return {"linux": OWN_PIDS | {"resources": resources}}


def cgroup_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text().strip().removeprefix("0::")


def supervisors() -> set[str]:
    """The cgroups of all."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if path.joinpath("comm").read_text() == "pyrun-pod\n":
                found.add(cgroup_of(int(path.name)))
        except OSError:
            continue
    return found


def test_scopes_in_a_kubelets_slice(node: SystemdNode) -> None:
    node.fork()
    assert node.driver() == v1.SYSTEMD
    pod = node.run_pod_in(PATH)
    given = limited(memory_limit_in_bytes=64 * MIB, cpu_shares=2048, cpu_quota=50000, cpu_period=100000)
    container = node.run(pod, **given)
    unit, cgroup = f"pyrun-{container}.scope", CGROUP_ROOT / PATH.strip("/") / f"pyrun-{container}.scope"
    assert supervisors() == {f"{PATH}/pyrun-pod-{pod}.scope"}
    wanted = {"Slice": SLICE, "ControlGroup": f"{PATH}/{unit}", "ActiveState": "active", "CPUQuotaPerSecUSec": "500ms"}
    assert show(unit, *wanted, "MemoryMax") == wanted | {"MemoryMax": str(64 * MIB)}
    node.check()
    said = node.call("ExecSync", container_id=container, cmd=["cat", "/proc/self/cgroup"], timeout=60)
    assert said.exit_code == 0 and said.stdout.startswith(b"0::/exec-"), "below the container's own"
    change = {"memory_limit_in_bytes": 80 * MIB, "memory_swap_limit_in_bytes": 80 * MIB}
    node.call("UpdateContainerResources", container_id=container, linux=change)
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    assert show(unit, "MemoryMax") == {"MemoryMax": str(80 * MIB)}
    assert cgroup.joinpath("memory.max").read_text() == f"{80 * MIB}\n"
    stats = node.call("PodSandboxStats", pod_sandbox_id=pod).stats.linux
    assert stats.memory.usage_bytes.value > 0
    assert stats.containers[0].cpu.usage_core_nano_seconds.value > 0
    node.call("StopContainer", container_id=container, timeout=30)
    assert node.status(container).exit_code == 7
    node.call("RemovePodSandbox", pod_sandbox_id=pod)
    node.check()
    assert show(SLICE, "ActiveState") == {"ActiveState": "active"}


def test_pods_outlive_the_daemon(node: SystemdNode) -> None:
    """One that names no parent has a slice of its own, which goes with it."""
    node.fork()
    with pytest.raises(PyrunError, match="cgroup_parent.*is not the name of a slice, and the cgroup driver is systemd"):
        node.run_pod_in("/kubepods/burstable/podu1")
    node.check()
    pod = node.run_pod()
    container = node.run(pod, script="trap 'exit 7' TERM; i=0; while :; do echo $i; i=$((i+1)); sleep 0.2; done")
    assert supervisors() == {f"/system.slice/system-pyrun_{pod}.slice/pyrun-pod-{pod}.scope"}
    assert show(f"pyrun-{container}.scope", "Slice") == {"Slice": f"system-pyrun_{pod}.slice"}
    wait_for(lambda: node.log() != [], PATIENCE_S, "its log")
    node.kill()
    seen = len(node.log())
    wait_for(lambda: len(node.log()) > seen, PATIENCE_S, "more of its log")
    node.fork()
    node.check()
    assert node.status(container).state == v1.CONTAINER_RUNNING
    node.call("StopContainer", container_id=container, timeout=30)
    assert node.status(container).exit_code == 7
    assert node.log() == [str(i) for i in range(len(node.log()))]


def test_the_clock_is_set(node: SystemdNode, clock: None) -> None:
    """By a day back and then forward, under a daemon that works: no deadline comes sooner or later, logs go on, and
    what runs is still known after a restart."""
    node.fork()
    pod = node.run_pod()
    id = node.run(pod, script="trap 'echo term' TERM; echo up; while :; do sleep 0.2; done")
    wait_for(lambda: node.log() == ["up"], PATIENCE_S, "its word")

    def lasts(rpc: str, **fields: Any) -> tuple[float, object]:
        begun = time.monotonic()
        try:
            return 0.0, node.call(rpc, container_id=id, **fields)
        except PyrunError as error:
            return time.monotonic() - begun, error

    with ThreadPoolExecutor(2) as pool:
        exec = pool.submit(lasts, "ExecSync", cmd=["sh", "-c", "echo in > /in; sleep 1000"], timeout=10)
        wait_for(
            lambda: node.call("ExecSync", container_id=id, cmd=["test", "-e", "/in"]).exit_code == 0, PATIENCE_S, "it"
        )
        set_clock(-DAY_S)
        took, said = exec.result(3 * PATIENCE_S)
        assert isinstance(said, DeadlineExceeded) and took >= 10, said
        node.call("ExecSync", container_id=id, cmd=["true"], timeout=60)
        node.kill()
        node.fork()
        assert node.status(id).state == v1.CONTAINER_RUNNING
        begun = time.monotonic()
        stop = pool.submit(node.call, "StopContainer", container_id=id, timeout=5)
        wait_for(lambda: "term" in node.log(), PATIENCE_S, "its signal")
        set_clock(DAY_S)
        stop.result(3 * PATIENCE_S)
        assert time.monotonic() - begun >= 5
    assert node.status(id).exit_code == 137
    node.call("RemovePodSandbox", pod_sandbox_id=pod)
    node.check()


def test_the_stop_of_all_units(node: SystemdNode) -> None:
    """As a shutdown does: pods end with their logs written, and nobody waits 90 s for a supervisor to be killed."""
    node.fork()
    pod = node.run_pod()
    node.run(pod, script="trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.2; done")
    wait_for(lambda: node.log() == ["up"], PATIENCE_S, "its word")
    node.kill()
    subprocess.run(["systemctl", "stop", "--no-block", f"system-pyrun_{pod}.slice"], check=True)
    wait_for(lambda: not supervisors(), PATIENCE_S, "its end")
    assert (node.log()[0], node.log()[-1]) == ("up", "bye")  # between them the shell says what has become of its sleep
    node.fork()
    assert node.call("ListPodSandbox").items[0].state == v1.SANDBOX_NOTREADY
    node.call("RemovePodSandbox", pod_sandbox_id=pod)
    node.check()


def test_killed_while_it_makes_a_pod(node: SystemdNode) -> None:
    for point in ("run:supervisor waits", "run:scope", "run:supervisor"):
        node.fork(die_at=point)
        with pytest.raises(PyrunError):
            node.run_pod()
        node.died()
        node.fork()
        node.check()
        wait_for(lambda: not supervisors(), PATIENCE_S, "its end")
        node.kill()


def test_killed_while_systemd_makes_a_scope(node: SystemdNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a container, whose first process waits for it: before the bus has the request, and with its job under way."""
    asked, moments = systemd.Manager._start, ["before", "after"]

    def start(self: systemd.Manager, unit: str, properties: Any) -> Any:
        ours = unit.startswith("pyrun-pod-")
        if not ours and moments[0] == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        found = asked(self, unit, properties)
        if not ours:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    pod = ""
    while moments:
        with monkeypatch.context() as patch:
            patch.setattr(systemd.Manager, "_start", start)
            node.fork()
        pod = pod or node.run_pod()
        with pytest.raises(PyrunError):
            node.create(pod)
        node.died()
        node.fork()
        node.check()
        assert len(node.call("ListPodSandbox").items) == 1
        node.kill()
        moments.pop(0)
    node.fork()
    node.run(pod)
    node.check()


def test_killed_for_want_of_memory(node: SystemdNode) -> None:
    """It is told, though systemd removes a scope as soon as nothing runs in it."""
    node.fork()
    pod = node.run_pod()
    given = limited(memory_limit_in_bytes=16 * MIB, memory_swap_limit_in_bytes=16 * MIB)
    for n in range(4):
        id = node.run(pod, f"c{n}", EATS, **given)
        status = node.wait_state(id, v1.CONTAINER_EXITED, PATIENCE_S)
        assert (status.exit_code, status.reason) == (137, "OOMKilled"), n
    id = node.run(pod, "other", "exit 137", **given)  # as one that was killed does
    assert node.wait_state(id, v1.CONTAINER_EXITED, PATIENCE_S).reason == "Error"
    node.check()


def test_a_node_agents_pods(node: SystemdNode) -> None:
    """`pyrun node run` names slices as a kubelet does, and removes the pod's."""
    agent = AgentNode(node)
    node.start()
    agent.write("web", make_pod("web", sh("c", SLEEP)))
    uid = str(agent.wait_ready("web")["metadata"]["uid"])
    slice = f"kubepods-besteffort-pod{uid.replace('-', '_')}.slice"
    (at,) = supervisors()
    assert at.rpartition("/")[0] == f"/kubepods.slice/kubepods-besteffort.slice/{slice}"
    (agent.manifests / "web.yaml").unlink()
    agent.wait(lambda pods: not pods)
    node.check()
    wait_for(lambda: show(slice, "ActiveState") == {"ActiveState": "inactive"}, PATIENCE_S, "the end of its slice")
    assert not (CGROUP_ROOT / at.strip("/")).parent.exists()
    subprocess.run(["systemctl", "stop", "kubepods.slice"], check=True)
    assert node.stop() == 0
    unmount(node.state / "volumes")


@pytest.mark.parametrize("drivers", [("cgroupfs", "systemd"), ("systemd", "cgroupfs")], ids="-".join)
def test_another_driver_leaves_no_cgroup_of_the_first(node: SystemdNode, drivers: tuple[str, str]) -> None:
    """A pod that the agent removes was made by an earlier one with the other driver."""
    agent = AgentNode(node)
    config = 'cgroup_driver = "{}"\ncni_conf_dir = ""\n'
    node.configure(config.format(drivers[0]))
    node.start()
    agent.write("web", make_pod("web", sh("c", SLEEP)))
    agent.wait_ready("web")
    (at,) = supervisors()
    assert ("kubepods.slice" in at) == (drivers[0] == "systemd")
    assert node.stop() == 0
    node.configure(config.format(drivers[1]))
    node.start()
    (agent.manifests / "web.yaml").unlink()
    agent.wait(lambda pods: not pods)
    wait_for(lambda: not (CGROUP_ROOT / at.strip("/")).parent.exists(), PATIENCE_S, "the end of the pod's cgroup")
    subprocess.run(["systemctl", "stop", "kubepods.slice"], check=False)  # where there is one
    assert not (CGROUP_ROOT / "kubepods").exists()
    node.check()
    assert node.stop() == 0
    unmount(node.state / "volumes")
