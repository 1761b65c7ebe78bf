"""Sandboxes on the real kernel: what is in them, and that nothing is left of one that failed, was killed, or ended."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyrun import cri_api as v1
from pyrun.errors import NotFound, PyrunError
from pyrun.executor import run_plan
from pyrun.facts import Facts, collect_facts
from pyrun.plan.model.plan import Plan
from pyrun.plan.model.steps import LANE_NAMES, PARENT, STAGE1, Step
from pyrun.plan.sandbox import plan_sandbox
from pyrun.pod.sandbox import Sandbox, end_sandbox, load_sandbox, make_sandbox, prepare_state
from pyrun.pod.sandbox.config import plan_request
from tests.support.container.leaks import collect_traces, find_leaks
from tests.support.executor.faults import EXDEV, children, descriptors, faults_build
from tests.support.pods.nets import pod_config, pod_id

MAPS = [v1.IDMapping(host_id=100000, container_id=0, length=65536)]
CGROUP = Path("/sys/fs/cgroup")


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "pods"
    prepare_state(str(path))
    yield path
    assert not [p for p in path.iterdir() if p.is_dir()], "a pod's directory is left"
    subprocess.run(["umount", path], check=True)
    for left in (CGROUP / "pyrun", CGROUP / "kubepods" / "pod1", CGROUP / "kubepods"):
        if left.exists():
            left.rmdir()


def remove_parent() -> None:
    """What all pods without a cgroup parent of their own have as theirs, which stays."""
    if (CGROUP / "pyrun").exists():
        (CGROUP / "pyrun").rmdir()


def config(*, userns: bool = False, options: dict[str, Any] | None = None, **linux: Any) -> v1.Message:
    words = dict(options or {})
    if userns:
        words["userns_options"] = v1.UserNamespace(mode=v1.POD, uids=MAPS, gids=MAPS)
    context = v1.LinuxSandboxSecurityContext(namespace_options=v1.NamespaceOption(**words))
    return pod_config(linux=v1.LinuxPodSandboxConfig(security_context=context, **linux))


def make(root: Path, given: v1.Message, facts: Facts | None = None) -> Sandbox:
    pod = pod_id()
    return make_sandbox(str(root / pod), pod, given, facts or collect_facts())


def inside(sandbox: Sandbox, *argv: str) -> str:
    flags = [f"--{kind}={path}" for kind, path in (("user", sandbox.user), ("net", sandbox.net), ("ipc", sandbox.ipc),
             ("uts", sandbox.uts)) if path]  # fmt: skip
    return subprocess.run(["nsenter", *flags, *argv], capture_output=True, text=True, check=True).stdout


def read(sandbox: Sandbox, path: str) -> str:
    return inside(sandbox, "cat", path).strip()


@pytest.mark.parametrize("userns", [False, True], ids=["plain", "userns"])
def test_what_a_pod_has(root: Path, userns: bool) -> None:
    sysctls = {"net.core.somaxconn": "77", "kernel.shmmax": "123456", "fs.mqueue.msg_max": "11"}
    sandbox = make(root, config(userns=userns, sysctls=sysctls))
    try:
        assert inside(sandbox, "hostname").strip() == "web"
        assert "LOOPBACK,UP" in inside(sandbox, "ip", "-o", "link")
        assert read(sandbox, "/proc/sys/net/core/somaxconn") == "77"
        assert read(sandbox, "/proc/sys/kernel/shmmax") == "123456"
        assert read(sandbox, "/proc/sys/fs/mqueue/msg_max") == "11"
        assert Path("/proc/sys/kernel/shmmax").read_text().strip() != "123456"
        shm = os.statvfs(sandbox.shm)
        assert shm.f_blocks * shm.f_frsize == 64 << 20
        owner = 100000 if userns else 0
        assert (os.stat(sandbox.shm).st_uid, os.stat(sandbox.shm).st_mode & 0o7777) == (owner, 0o1777)
        assert sandbox.cgroup and Path(sandbox.cgroup).is_dir()
        assert Path(sandbox.cgroup).parent == CGROUP / sandbox.cgroup_parent.lstrip("/")
        assert Path(sandbox.directory).stat().st_mode & 0o777 == 0o700
        if userns:
            assert inside(sandbox, "cat", "/proc/self/uid_map").split() == ["0", "100000", "65536"]
            nets = subprocess.run(["lsns", "-n", "-t", "net", "-o", "NS"], capture_output=True, check=False)
            assert nets.returncode == 0
            # Root of the user namespace may change the network: it owns it.
            inside(sandbox, "ip", "link", "set", "lo", "mtu", "60000")
    finally:
        end_sandbox(sandbox.directory)


@pytest.mark.parametrize(
    ("options", "own"),
    [
        ({"network": v1.NODE}, {"ipc"}),
        ({"ipc": v1.NODE}, {"net", "uts"}),
        ({"network": v1.NODE, "ipc": v1.NODE}, set()),
    ],
)
def test_namespaces_of_the_node(root: Path, options: dict[str, Any], own: set[str]) -> None:
    sandbox = make(root, config(options=options))
    try:
        assert {kind for kind in ("net", "ipc", "uts", "user") if getattr(sandbox, kind)} == own
        assert (sandbox.shm == "/dev/shm") == ("ipc" not in own)
    finally:
        end_sandbox(sandbox.directory)


def test_it_is_found_again_after_a_restart(root: Path) -> None:
    facts = collect_facts()
    sandbox = make(root, config(userns=True), facts)
    again = load_sandbox(sandbox.directory, facts)
    for name in Sandbox.__slots__:
        if "mappings" not in name:
            assert getattr(again, name) == getattr(sandbox, name), name
    assert [m.host_id for m in again.uid_mappings] == [100000]
    subprocess.run(["umount", sandbox.net], check=True)  # type: ignore[list-item]
    with pytest.raises(NotFound, match="are gone"):
        load_sandbox(sandbox.directory, facts)
    end_sandbox(sandbox.directory)
    with pytest.raises(NotFound, match="no sandbox"):
        load_sandbox(sandbox.directory, facts)
    end_sandbox(sandbox.directory)


def test_an_end_kills_what_runs_in_the_pods_own_cgroup(root: Path) -> None:
    sandbox = make(root, config())
    assert sandbox.cgroup
    process = subprocess.Popen(["sleep", "60"])
    Path(sandbox.cgroup, "cgroup.procs").write_text(str(process.pid))
    end_sandbox(sandbox.directory)
    assert process.wait(60) == -signal.SIGKILL
    assert not Path(sandbox.cgroup).parent.exists()


def test_a_parent_that_was_named_stays(root: Path) -> None:
    parent = CGROUP / "kubepods" / "pod1"
    parent.mkdir(parents=True)
    sandbox = make(root, config(cgroup_parent="/kubepods/pod1"))
    assert sandbox.cgroup == f"{parent}/{sandbox.id}" and sandbox.cgroup_parent == "/kubepods/pod1"
    end_sandbox(sandbox.directory)
    assert list(parent.glob("*/")) == [] and parent.exists()


def test_a_recursive_bind_of_the_hosts_run_takes_no_pin_along(root: Path) -> None:
    """A container to which the host's /run is bound recursively when the pod is there."""
    sandbox = make(root, config())
    try:
        bound = root.parent / "bound"
        bound.mkdir()
        subprocess.run(["mount", "--rbind", root.parent, bound], check=True)
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        subprocess.run(["umount", "-R", bound], check=True)
        assert f"{root}/{sandbox.id}/ns/net" in mounts
        assert f"{bound}/pods" in mounts
        assert not [mount for mount in mounts if mount.startswith(f"{bound}/pods/")]
    finally:
        end_sandbox(sandbox.directory)


def test_a_slave_that_is_there_before_gets_no_mount(tmp_path: Path) -> None:
    """With a shared /run, as systemd has it."""
    shared = tmp_path / "run"
    shared.mkdir()
    subprocess.run(["mount", "--bind", shared, shared], check=True)
    subprocess.run(["mount", "--make-shared", shared], check=True)
    slave = subprocess.Popen(
        ["unshare", "-m", "--propagation", "slave", "sh", "-c", "echo; read x; cat /proc/self/mountinfo"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert slave.stdout and slave.stdout.readline() == "\n"
    prepare_state(f"{shared}/pods")
    sandbox = make(shared / "pods", config())
    assert f"{sandbox.directory}/ns/net" in Path("/proc/self/mountinfo").read_text()
    seen = slave.communicate("\n", timeout=60)[0]
    end_sandbox(sandbox.directory)
    subprocess.run(["umount", "-R", shared], check=True)
    (CGROUP / "pyrun").rmdir()
    assert f"{shared}/pods" in seen
    assert "/ns" not in "".join(line.split()[4] for line in seen.splitlines() if str(shared) in line)


# --- faults and kills ------------------------------------------------------------------------------------------------


class Planned:
    """A sandbox that is planned for the test build."""

    def __init__(self, root: Path, given: v1.Message) -> None:
        self.facts = collect_facts()
        self.facts.init_path = faults_build()
        self.pod = pod_id()
        self.directory = str(root / self.pod)
        self.plan: Plan = plan_sandbox(plan_request(self.pod, self.directory, given, self.facts, files={}), self.facts)

    def steps(self, *lanes: int) -> list[tuple[int, str, Step]]:
        found, first = [], 0
        for number, lane in enumerate(self.plan.lanes):
            if number in lanes:
                found += [
                    (first + i, f"{LANE_NAMES[number]} {first + i} {type(s).__name__}", s) for i, s in enumerate(lane)
                ]
            first += len(lane)
        return found


@pytest.mark.parametrize("userns", [False, True], ids=["plain", "userns"])
def test_each_step_fails(root: Path, userns: bool) -> None:
    given = config(userns=userns, sysctls={"net.core.somaxconn": "77"})
    planned = Planned(root, given)
    fds, traces, whole = descriptors(), collect_traces(), 0
    for index, where, _ in planned.steps(PARENT, STAGE1):
        fault = {"fail_step": index, "fail_errno": EXDEV}
        try:
            make_sandbox(planned.directory, planned.pod, given, planned.facts, fault=fault)
        except PyrunError as error:
            assert "EXDEV" in str(error), f"{where}: {error}"
            assert "could not be undone" not in str(error), f"{where}: {error}"
        else:  # a rule leads round this step here
            whole += 1
            end_sandbox(planned.directory)
        remove_parent()
        assert not os.path.exists(planned.directory), where
        assert children() == [], where
        extra = {n: t for n, t in descriptors().items() if n not in fds and "pyrun-init" not in t}
        assert not extra, f"{where}: {extra}"
        assert not find_leaks(traces), where
    assert whole <= 2


@pytest.mark.parametrize("userns", [False, True], ids=["plain", "userns"])
@pytest.mark.parametrize("lane", [PARENT, STAGE1], ids=["daemon", "child"])
def test_killed_at_each_step(root: Path, userns: bool, lane: int) -> None:
    """Of the daemon, or of the child that makes the namespaces."""
    planned = Planned(root, config(userns=userns, sysctls={"net.core.somaxconn": "77"}))
    traces = collect_traces()
    for index, where, _ in planned.steps(lane):
        pid = os.fork()
        if pid == 0:
            code = 9
            try:
                run_plan(planned.plan, fault={"kill_step": index}).close()
                code = 0
            except BaseException as e:
                code = 1 if getattr(e, "errno", 0) == errno.ESRCH else 2
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        assert code in ((-signal.SIGKILL, 0) if lane == PARENT else (1,)), f"{where}: {code}"
        end_sandbox(planned.directory)
        assert not os.path.exists(planned.directory), where
        remove_parent()
        assert not find_leaks(traces), where


def test_a_second_one_in_the_same_place_harms_nothing(root: Path) -> None:
    given, facts = config(), collect_facts()
    sandbox = make(root, given, facts)
    with pytest.raises(PyrunError, match="EEXIST"):
        make_sandbox(sandbox.directory, sandbox.id, given, facts)
    assert load_sandbox(sandbox.directory, facts).net == sandbox.net
    end_sandbox(sandbox.directory)
