"""Every step of exec and of run is made to fail, and pyrun is killed at each of its own: nothing may be left.

tests/host/test_faults.py does so for create. What must be gone here: the process, its pid file, descriptors, and of
a run the container as well; the container that was entered must be there still.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyrun.errors import PyrunError
from pyrun.executor import StepFailed, run_plan
from pyrun.facts import collect_facts
from pyrun.oci.load import load_file
from pyrun.plan.exec import plan_exec
from pyrun.plan.model.plan import Plan
from pyrun.plan.model.request import Request
from pyrun.plan.model.steps import (
    PARENT,
    STAGE1,
    STAGE2,
    Ack,
    AwaitPid,
    Clone3,
    Clone3Init,
    Execve,
    Goto,
    KeyctlSession,
    Meet,
    Spawn,
)
from pyrun.plan.namespace.namespaces import READY
from pyrun.runtime import create
from pyrun.runtime.delete import delete
from pyrun.runtime.exec import collect_target
from pyrun.runtime.store import Store
from tests.support.container.bundle import BundleMaker
from tests.support.container.leaks import collect_traces, find_leaks
from tests.support.container.protections import JOIN_SESSION_KEYRING, KEYCTL, SESSION, collect_protections, keys
from tests.support.container.runner import Runner, wait_for
from tests.support.executor.faults import (
    EXDEV,
    RULED,
    children,
    descriptors,
    faults_build,
    prepare,
    ruled_faults,
    steps_of,
)
from tests.support.vm.cgroup import use_host_tools

CLOSED = 0x20000000  # PX_CLOSED of wire.h
PROCESS = {"oomScoreAdj": 10, "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 64}], "terminal": True}


KEEPER = """
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(64)
print("ready", flush=True)
kept = []
while True:
    kept.append(listener.accept()[0])
    kept[-1].settimeout(5)
    try:
        kept += socket.recv_fds(kept.pop(), 4096, 1)[1]
    except OSError:
        pass
"""


@pytest.fixture
def sockets(tmp_path: Path) -> Iterator[str]:
    """Someone who listens, and keeps the terminals that he is sent: one that nobody has is hung up."""
    path = f"/tmp/keeper-{os.getpid()}"
    keeper = subprocess.Popen([sys.executable, "-c", KEEPER, path], stdout=subprocess.PIPE)
    assert keeper.stdout is not None and keeper.stdout.readline() == b"ready\n"
    yield path
    keeper.kill()
    keeper.communicate()
    os.unlink(path)


def reap(before: list[int]) -> bool:
    """Whether all new children have ended: a stage 2 that could not tell its pid is a zombie until we end."""
    for pid in set(children()) - set(before):
        os.waitpid(pid, os.WNOHANG)
    return set(children()) <= set(before)


def plan_of(root: Path, id: str, pid_file: Path, console: str, moved: bool) -> Plan:
    """A plan of exec with a terminal, a pid file and a seccomp filter, for the test build. moved: the process can't be
    born in the cgroup."""
    container = Store(str(root)).open(id)
    spec, facts = load_file(container.directory + "/config.json"), collect_facts()
    assert spec.process is not None
    process = spec.process.replace(args=("sleep", "1000"), terminal=True)
    request = Request(id=id, pid_file=str(pid_file), console_socket=console, pidfd_socket=console)
    plan = plan_exec(spec, process, facts, collect_target(container, facts), request)
    for step in plan.steps:
        if isinstance(step, Clone3):
            step.args["image"] = faults_build()
        if isinstance(step, Clone3Init) and "cgroup" in step.args and moved:
            step.args["cgroup"] = plan.slots.index("proc")
    return plan


def passed_over(plan: Plan, moved: bool) -> set[int]:
    """The steps that are not done: those that move the process, or what leads around them."""
    parent = plan.lanes[PARENT]
    around = next(i for i, step in enumerate(parent) if isinstance(step, AwaitPid)) + 1
    last = next(i for i, step in enumerate(parent) if i > around and isinstance(step, Ack))
    outside = [i for i, step in enumerate(plan.steps) if isinstance(step, Clone3Init) and "told" in step.args]
    assert isinstance(parent[around], Goto) and len(outside) == 1
    return {around} if moved else {*range(around + 1, last + 1), *outside}


@pytest.fixture
def entered(pyrun: Runner, bundle: BundleMaker) -> str:
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]}
    made = bundle(["sleep", "1000"], process={**PROCESS, "terminal": False}, linux={"seccomp": profile})
    return pyrun.create_started(made)


def numbered(plan: Plan, *lanes: int) -> list[tuple[int, str]]:
    first, out = 0, []
    for lane, steps in enumerate(plan.lanes):
        if lane in lanes:
            out += [(first + i, f"{i} {type(step).__name__}") for i, step in enumerate(steps)]
        first += len(steps)
    return out


def more_than(fds: dict[str, str]) -> dict[str, str]:
    """Descriptors of ours that were not open before."""
    return {n: t for n, t in descriptors().items() if n not in fds and "pyrun-init" not in t}


@pytest.mark.parametrize("moved", [False, True])
def test_each_step_of_exec_fails(pyrun: Runner, entered: str, tmp_path: Path, sockets: str, moved: bool) -> None:
    pid_file = tmp_path / "pid"
    plan = plan_of(pyrun.root, entered, pid_file, sockets, moved)
    skipped = passed_over(plan, moved)
    fds, traces, before = descriptors(), collect_traces(), children()
    for index, where in numbered(plan, PARENT, STAGE1, STAGE2):
        if index in skipped:
            continue
        with pytest.raises(StepFailed) as failure:
            run_plan(plan, fault={"fail_step": index, "fail_errno": EXDEV}).close()
        assert (failure.value.errno, failure.value.step) == (EXDEV, index), where
        assert failure.value.undo_errno == 0, where
        wait_for(lambda: reap(before), 5, f"{where}: no child")
        assert not pid_file.exists(), where
        assert not more_than(fds), f"{where}: {more_than(fds)}"
    leaks = find_leaks(traces)
    assert not leaks, leaks
    assert pyrun.state(entered)["status"] == "running"


@pytest.mark.parametrize("moved", [False, True])
def test_exec_killed_at_each_parent_step(
    pyrun: Runner, entered: str, tmp_path: Path, sockets: str, moved: bool
) -> None:
    """What it had made ends by itself; from the last answer on it is a process like any other, and stays."""
    pid_file = tmp_path / "pid"
    plan = plan_of(pyrun.root, entered, pid_file, sockets, moved)
    traces = collect_traces()
    for index, where in numbered(plan, PARENT)[:-1]:
        if index in passed_over(plan, moved):
            continue
        pid = os.fork()
        if pid == 0:
            try:
                run_plan(plan, fault={"kill_step": index})
            finally:
                os._exit(3)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL, where
        leaks = find_leaks(traces)
        assert not leaks, f"{where}: {leaks}"
        pid_file.unlink(missing_ok=True)


@pytest.mark.parametrize("met", [False, True])
def test_an_exec_killed_at_each_of_its_steps_is_an_error(
    pyrun: Runner, entered: str, tmp_path: Path, met: bool
) -> None:
    """Also where nobody meets the process before its exec, and after that: the socket closes as it does at an exec."""
    container = Store(str(pyrun.root)).open(entered)
    spec, facts = load_file(container.directory + "/config.json"), collect_facts()
    assert spec.process is not None
    process = spec.process.replace(args=("sleep", "1000"))
    request = Request(id=entered, pid_file=str(tmp_path / "pid") if met else None)
    plan = plan_exec(spec, process, facts, collect_target(container, facts), request)
    next(step for step in plan.steps if isinstance(step, Clone3)).args["image"] = faults_build()
    assert any(isinstance(step, Meet) for step in plan.steps) == met
    traces = collect_traces()
    steps = numbered(plan, STAGE2)
    for index, where in steps:
        with pytest.raises(StepFailed) as failure:
            run_plan(plan, fault={"kill_step": index}).close()
        assert (failure.value.errno, failure.value.child_status) == (errno.ESRCH, signal.SIGKILL), where
        assert not (tmp_path / "pid").exists(), where
    assert isinstance(plan.steps[steps[-1][0]], Execve)
    outcome = run_plan(plan)
    os.kill(outcome.pid, signal.SIGKILL)
    os.waitpid(outcome.pid, 0)
    outcome.close()
    leaks = find_leaks(traces)
    assert not leaks, leaks


def wait_for_sleep(pid: int) -> None:
    wait_for(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n", 60, "the program")


def test_a_socket_that_closes_before_the_exec_is_over_is_no_death(
    pyrun: Runner, entered: str, bundle: BundleMaker, tmp_path: Path
) -> None:
    """A kernel may close what an exec closes before it takes PF_FORKNOEXEC away, and let others run in between."""
    container = Store(str(pyrun.root)).open(entered)
    spec, facts = load_file(container.directory + "/config.json"), collect_facts()
    assert spec.process is not None
    process = spec.process.replace(args=("sleep", "1000"))
    plan = plan_exec(spec, process, facts, collect_target(container, facts), Request(id=entered))
    next(step for step in plan.steps if isinstance(step, Clone3)).args["image"] = faults_build()
    store, prepared = prepare(tmp_path / "state", "r2", bundle(["sleep", "1000"]).path, park=False)
    for each in (plan, prepared.plan):
        last, where = numbered(each, STAGE2)[-1]
        assert isinstance(each.steps[last], Execve), where
        outcome = run_plan(each, fault={"kill_step": last | CLOSED})
        wait_for_sleep(outcome.pid)
        os.kill(outcome.pid, signal.SIGKILL)
        os.waitpid(outcome.pid, 0)
        outcome.close()
    delete(store, "r2", print)


def test_each_step_of_run_fails(bundle: BundleMaker, tmp_path: Path, sockets: str) -> None:
    """Behind the exec too: there only the poststart hooks are left, and they take the container with them."""
    made = bundle(["sleep", "1000"], hooks={"poststart": [{"path": "/bin/true"}] * 2}, process=PROCESS)
    store, prepared = prepare(tmp_path / "state", "r0", made.path, park=False, console_socket=sockets)
    fds, traces, before = descriptors(), collect_traces(), children()
    steps = steps_of(prepared, PARENT, STAGE1, STAGE2)
    late = [i for i, s in steps if isinstance(s, (Execve, Spawn))]
    assert len(late) == 3
    skipped = []
    for index, step in steps:
        where = f"{index} {type(step).__name__}"
        try:
            create.run_prepared(store, prepared, print, fault={"fail_step": index, "fail_errno": EXDEV}).close()
        except PyrunError:
            assert store.ids() == [], where
        else:  # a rule led round it
            skipped.append(where)
            assert index not in late, where
            delete(store, "r0", print, force=True)
        wait_for(lambda: reap(before), 5, f"{where}: no child")
        assert not more_than(fds), f"{where}: {more_than(fds)}"
        leaks = find_leaks(traces)
        assert not leaks, f"{where}: {leaks}"
    assert len(skipped) < len(steps) / 4, skipped


def test_a_run_killed_between_the_last_answer_and_its_program_is_an_error(bundle: BundleMaker, tmp_path: Path) -> None:
    """The socket closes then as it does at an exec."""
    hook = [{"path": "/bin/true"}]
    made = bundle(["sleep", "1000"], hooks={"startContainer": hook, "poststart": hook})
    store, prepared = prepare(tmp_path / "state", "r1", made.path, park=False)
    fds, traces, before = descriptors(), collect_traces(), children()
    steps = steps_of(prepared, STAGE2)
    answered = next(i for i, step in steps if isinstance(step, Meet) and step.args["point"] == READY)
    late = [(i, type(step).__name__) for i, step in steps if i > answered]
    assert [name for _, name in late] == ["Spawn", "Execve"]
    for index, where in late:
        with pytest.raises(PyrunError, match="SIGKILL"):
            create.run_prepared(store, prepared, print, fault={"kill_step": index}).close()
        assert (store.ids(), children(), more_than(fds)) == ([], before, {}), where
        leaks = find_leaks(traces)
        assert not leaks, f"{where}: {leaks}"


def test_pyrun_killed_in_the_foreground_leaves_a_container_that_can_be_deleted(
    pyrun: Runner, bundle: BundleMaker
) -> None:
    process = pyrun.popen("run", "-b", bundle(["sleep", "1000"]).path, "one")
    wait_for(lambda: bool(pyrun.ids()) and pyrun.state("one")["status"] == "running", 10, "the container")
    process.kill()
    process.wait()
    assert pyrun.state("one")["status"] == "running"
    pyrun.delete("one", "--force").ok()


@pytest.mark.parametrize("own", [False, True], ids=["plain", "userns"])
def test_what_a_rule_of_exec_takes_leaves_an_equally_safe_process(
    pyrun: Runner, bundle: BundleMaker, tmp_path: Path, own: bool
) -> None:
    """The errnos that rules go on with, as if the kernel had said them; test_faults.py does so for create."""
    (out := tmp_path / "out").mkdir()
    out.chmod(0o777)
    caps = dict.fromkeys(("bounding", "effective", "permitted"), ["CAP_KILL"])
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]}
    process = {"user": {"uid": 5, "gid": 6, "additionalGids": [7]}, "capabilities": caps}
    made = use_host_tools(bundle(["sleep", "1000"], process=process, linux={"seccomp": profile}))
    made.add_mount("/out", str(out), "rbind", "rw")
    if own:
        for path in (tmp_path, *tmp_path.parents[:2]):
            path.chmod(path.stat().st_mode | 0o011)
        maps = [{"containerID": 0, "hostID": 100000, "size": 65536}]
        subprocess.run(["chown", "-hR", "100000:100000", made.rootfs], check=True)
        made.add_namespace("user").update(linux={"uidMappings": maps, "gidMappings": maps})
    container = Store(str(pyrun.root)).open(pyrun.create_started(made))
    spec, facts = load_file(container.directory + "/config.json"), collect_facts()
    assert spec.process is not None
    request = Request(id=container.id)
    plan = plan_exec(spec, spec.process.replace(args=tuple(SESSION)), facts, collect_target(container, facts), request)
    next(step for step in plan.steps if isinstance(step, Clone3)).args["image"] = faults_build()

    def protections(fault: dict[str, int]) -> set[str]:
        (out / "report").unlink(missing_ok=True)
        caller = keys(KEYCTL, JOIN_SESSION_KEYRING, 0)
        outcome = run_plan(plan, fault=fault)
        wait_for((out / "report").exists, 10, "the program")
        found, session = collect_protections(outcome.pid), int((out / "report").read_text())
        os.kill(outcome.pid, signal.SIGKILL)
        os.waitpid(outcome.pid, 0)
        outcome.close()
        return found | {"keyring: " + ("the caller's" if session in (caller, -1) else "its own")}

    whole, taken = protections({}), 0
    assert "keyring: its own" in whole and any(container.id in line for line in whole if line.startswith("cgroup"))
    for index, number in ruled_faults(plan):
        step = plan.steps[index]
        try:
            found = protections({"fail_step": index, "fail_errno": number | RULED})
        except StepFailed:
            continue
        taken += 1
        says_no_keys = isinstance(step, KeyctlSession) and number == errno.ENOSYS
        changed = [line for line in whole ^ found if not (says_no_keys and line.startswith("keyring"))]
        assert not changed, f"{index} {type(step).__name__} {errno.errorcode.get(number)}: {sorted(changed)}"
    assert taken >= 3, "the rules were not reached"
