"""Every step of a plan is made to fail, and pyrun is killed at every step of its own: nothing may be left.

The leak_check fixture looks for mounts, cgroups and processes; here state, descriptors and children are looked at as
well.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pyrun.errors import PyrunError
from pyrun.executor import StepFailed, run_plan
from pyrun.plan.model.steps import PARENT, STAGE1, STAGE2, AwaitPid, Clone3Init, Execve, Park
from pyrun.runtime import create
from pyrun.runtime.delete import delete
from pyrun.runtime.prepare import Prepared
from pyrun.runtime.start import start
from pyrun.runtime.store import Store
from tests.support.container.bundle import Bundle, BundleMaker
from tests.support.container.leaks import collect_traces, find_leaks
from tests.support.container.protections import JOIN_SESSION_KEYRING, KEYCTL, SESSION, collect_protections, keys
from tests.support.container.runner import wait_for
from tests.support.executor.faults import (
    EXDEV,
    RULED,
    children,
    describe,
    descriptors,
    prepare,
    ruled_faults,
    steps_of,
)
from tests.support.vm.cgroup import use_host_tools

HOOK = [{"path": "/bin/true", "args": ["true"]}]
HOOKS = dict.fromkeys(("prestart", "createRuntime", "createContainer"), HOOK)
UNTOLD = 0x40000000  # PX_UNTOLD of wire.h
MAPS = [{"containerID": 0, "hostID": 100000, "size": 65536}]


def rich(bundle: BundleMaker, tmp_path: Path, *, userns: bool) -> Bundle:
    """A bundle that has a step of nearly every kind."""
    (tmp_path / "src").mkdir(exist_ok=True)
    b = bundle(["sleep", "60"], hooks=HOOKS, process={"oomScoreAdj": 10, "user": {"uid": 0, "additionalGids": [5]}})
    b.add_mount("/data/deep", str(tmp_path / "src"), "rbind", "ro")
    b.add_namespace("time")
    b.update(linux={"timeOffsets": {"boottime": {"secs": 5}}, "sysctl": {"net.ipv4.ip_forward": "1"}})
    if userns:
        b.add_namespace("user")
        device = {"path": "/dev/its/own", "type": "c", "major": 1, "minor": 5}
        b.update(linux={"uidMappings": MAPS, "gidMappings": MAPS, "devices": [device]})
        subprocess.run(["chown", "-hR", "100000:100000", b.rootfs], check=True)
        os.chmod(tmp_path, 0o755)
        for path in (tmp_path.parent, tmp_path.parent.parent):
            os.chmod(path, path.stat().st_mode | 0o011)
    return b


def assert_gone(store: Store, fds: dict[str, str], where: str, beside: Sequence[int] = ()) -> None:
    assert store.ids() == [], where
    assert children() == list(beside), where
    extra = {n: t for n, t in descriptors().items() if n not in fds and "pyrun-init" not in t}
    assert not extra, f"{where}: {extra}"


@pytest.mark.parametrize("userns", [False, True], ids=["plain", "userns"])
def test_each_step_fails(bundle: BundleMaker, tmp_path: Path, userns: bool) -> None:
    b = rich(bundle, tmp_path, userns=userns)
    store, prepared = prepare(tmp_path / "state", "f0", b.path)
    indices = [i for i, step in steps_of(prepared, PARENT, STAGE1, STAGE2) if not isinstance(step, (Park, Execve))]
    fds, traces = descriptors(), collect_traces()
    skipped = []
    for index in indices:
        where = describe(prepared, index)
        try:
            create.run_prepared(store, prepared, print, fault={"fail_step": index, "fail_errno": EXDEV}).close()
        except PyrunError as error:
            assert "EXDEV" in str(error) or "cross-device" in str(error), f"{where}: {error}"
            assert_gone(store, fds, where)
        else:  # a rule led round this step on this host: then it was a whole create
            skipped.append(where)
            delete(store, "f0", print, force=True)
            while children():
                os.wait()
        leaks = find_leaks(traces)
        assert not leaks, f"{where}: {leaks}"
    assert len(skipped) < len(indices) / 4, f"too many steps never ran: {skipped}"


# What an errno says, so that nothing of the kind can be asked of a container in which it is not so.
ABSENT = "there is no such path, so nothing to hide"
MEANINGS: dict[tuple[str, int], tuple[str, str]] = {
    ("Openat2 /linux/maskedPaths", errno.ENOENT): (ABSENT, "mount "),
    ("Openat2 /linux/maskedPaths", errno.ENOTDIR): (ABSENT, "mount "),
    ("Openat2 /linux/readonlyPaths", errno.ENOENT): (ABSENT, "mount "),
    ("Openat2 /linux/readonlyPaths", errno.ENOTDIR): (ABSENT, "mount "),
    ("CheckNs /linux/namespaces", errno.EBUSY): ("the namespace to join is ours, so none is joined", ""),
    ("KeyctlSession ", errno.ENOSYS): ("there are no keys, or a filter keeps all from them", "keyring"),
}


def hard(bundle: BundleMaker, tmp_path: Path, kind: str) -> Bundle:
    """A bundle with a protection of every kind; its program tells of its keyring."""
    (out := tmp_path / "out").mkdir(exist_ok=True)
    out.chmod(0o777)
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]}
    caps = dict.fromkeys(("bounding", "effective", "permitted", "inheritable", "ambient"), ["CAP_KILL"])
    user = {"uid": 5, "gid": 6, "additionalGids": [7]}
    b = bundle(SESSION, hooks=HOOKS, process={"user": user, "capabilities": caps}, root={"readonly": True})
    use_host_tools(b).add_mount("/out", str(out), "rbind", "rw", "nosuid")
    b.add_mount("/run", "tmpfs", "ro", "nosuid", type="tmpfs").add_mount("/tmp", "tmpfs", "noexec", type="tmpfs")
    b.update(linux={"seccomp": profile, "sysctl": {"net.ipv4.ip_forward": "1"}})
    if kind != "plain":
        for path in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
            path.chmod(path.stat().st_mode | 0o011)
        subprocess.run(["chown", "-hR", "100000:100000", b.rootfs], check=True)
        b.update(linux={"uidMappings": MAPS, "gidMappings": MAPS})
        b.add_namespace("user")
    return b


@pytest.fixture
def other_userns() -> Iterator[str]:
    """The path of a user namespace with MAPS."""
    holder = subprocess.Popen(["unshare", "-U", "sleep", "1000"])
    wait_for(lambda: Path(f"/proc/{holder.pid}/cmdline").read_bytes().startswith(b"sleep"), 30, "unshare")
    for name in ("uid_map", "gid_map"):
        Path(f"/proc/{holder.pid}/{name}").write_text("0 100000 65536\n")
    yield f"/proc/{holder.pid}/ns/user"
    holder.kill()
    holder.wait()


def protections(store: Store, prepared: Prepared, fault: dict[str, int], out: Path) -> set[str]:
    """Those of the container that comes of a fault, created and started; it is deleted again. StepFailed."""
    (out / "report").unlink(missing_ok=True)
    own = keys(KEYCTL, JOIN_SESSION_KEYRING, 0)
    create.run_prepared(store, prepared, print, fault=fault).close()
    start(store, "safe", print)
    wait_for(lambda: (out / "report").exists(), 10, "the program")
    pid = store.open("safe").record.pid
    found = collect_protections(pid)
    session = int((out / "report").read_text())
    delete(store, "safe", print, force=True)
    os.waitpid(pid, 0)
    return found | {"keyring: " + ("the caller's" if session in (own, -1) else "its own")}


@pytest.mark.parametrize("kind", ["plain", "userns", "joined"])
def test_what_a_rule_takes_leaves_an_equally_safe_container(
    bundle: BundleMaker, tmp_path: Path, kind: str, other_userns: str
) -> None:
    """Each errno that a rule of a step goes on with, as if the kernel had said it: all protections hold, or create
    fails and leaves nothing."""
    b = hard(bundle, tmp_path, kind)
    if kind == "joined":
        b.drop_namespace("user").add_namespace("user", other_userns)
        b.update(linux={"uidMappings": None, "gidMappings": None})
    store, prepared = prepare(tmp_path / "state", "safe", b.path)
    whole = protections(store, prepared, {}, tmp_path / "out")
    assert "keyring: its own" in whole
    assert {"NoNewPrivs:\t1", "Seccomp:\t2"} <= whole
    beside, fds, traces, taken = children(), descriptors(), collect_traces(), 0
    for index, number in ruled_faults(prepared.plan):
        step = prepared.plan.steps[index]
        where = f"{describe(prepared, index)} {step.at}: {errno.errorcode[number]}"
        try:
            fault = {"fail_step": index, "fail_errno": number | RULED}
            found = protections(store, prepared, fault, tmp_path / "out")
        except PyrunError:
            assert_gone(store, fds, where, beside)
        else:
            taken += 1
            place = "/".join((step.at or "").split("/")[:3])
            _, passed = MEANINGS.get((f"{type(step).__name__} {place}", number), ("", "nothing"))
            changed = [line for line in whole ^ found if not line.startswith(passed)]
            assert not changed, f"{where}: {sorted(changed)}"
        leaks = find_leaks(traces)
        assert not leaks, f"{where}: {leaks}"
    assert taken > 20, "the rules were not reached"


def test_a_step_after_start_fails(bundle: BundleMaker, tmp_path: Path) -> None:
    """What fails behind the Park is told by start, and the container is stopped then."""
    b = rich(bundle, tmp_path, userns=False)
    store, prepared = prepare(tmp_path / "state", "f1", b.path)
    index = next(i for i, step in steps_of(prepared, STAGE2) if isinstance(step, Execve))
    create.run_prepared(store, prepared, print, fault={"fail_step": index, "fail_errno": EXDEV}).close()
    with pytest.raises(PyrunError, match="cross-device"):
        start(store, "f1", print)
    while children():
        os.wait()
    assert store.open("f1").status() == "stopped"
    delete(store, "f1", print)
    assert store.ids() == []


@pytest.mark.parametrize("userns", [False, True], ids=["plain", "userns"])
def test_killed_at_each_parent_step(bundle: BundleMaker, tmp_path: Path, userns: bool) -> None:
    """SIGKILL of pyrun at a step; delete --force then cleans what remains."""
    b = rich(bundle, tmp_path, userns=userns)
    (tmp_path / "state").mkdir(mode=0o700)
    store, prepared = prepare(tmp_path / "state", "k0", b.path)
    traces, skipped = collect_traces(), []
    for index, _ in steps_of(prepared, PARENT):
        where = describe(prepared, index)
        pid = os.fork()
        if pid == 0:
            try:
                run_plan(prepared.plan, fault={"kill_step": index})
            finally:
                os._exit(3)
        _, status = os.waitpid(pid, 0)
        if os.WIFEXITED(status):  # a rule led round it
            assert os.WEXITSTATUS(status) == 3, where
            skipped.append(where)
        else:
            assert os.WTERMSIG(status) == signal.SIGKILL, where
        delete(store, "k0", print, force=True)
        assert store.ids() == [], where
        leaks = find_leaks(traces)
        assert not leaks, f"{where}: {leaks}"
    assert not skipped, f"steps that never ran: {skipped}"


@pytest.mark.parametrize("userns", [False, True], ids=["plain", "userns"])
def test_a_child_is_killed_at_each_step(bundle: BundleMaker, tmp_path: Path, userns: bool) -> None:
    """SIGKILL of stage 1 or of the init: create says so, and cleans up. UNTOLD: the init is there, and nobody knows."""
    b = rich(bundle, tmp_path, userns=userns)
    store, prepared = prepare(tmp_path / "state", "k1", b.path)
    steps = [i for i, step in steps_of(prepared, STAGE1, STAGE2) if not isinstance(step, (Park, Execve))]
    untold = [i | UNTOLD for i, step in steps_of(prepared, STAGE1) if isinstance(step, Clone3Init)]
    assert untold
    fds, traces, skipped = descriptors(), collect_traces(), []
    for index in [*untold, *steps]:
        where = f"{describe(prepared, index & ~UNTOLD)} {index:#x}"
        try:
            create.run_prepared(store, prepared, print, fault={"kill_step": index}).close()
        except PyrunError as error:
            assert "SIGKILL" in str(error), f"{where}: {error}"
            assert_gone(store, fds, where)
        else:  # a rule led round it, and then it was a whole create
            assert index not in untold, where
            skipped.append(where)
            delete(store, "k1", print, force=True)
            while children():
                os.wait()
        leaks = find_leaks(traces)
        assert not leaks, f"{where}: {leaks}"
    assert len(skipped) < len(steps) / 4, f"too many were never killed: {skipped}"


@pytest.mark.parametrize("userns", [False, True], ids=["plain", "userns"])
def test_pyrun_gives_up_while_the_init_is_made(bundle: BundleMaker, tmp_path: Path, userns: bool) -> None:
    """Stage 1 told of it, or was killed before it could: pyrun reaps it all the same, and no zombie is left to it."""
    b = rich(bundle, tmp_path, userns=userns)
    store, prepared = prepare(tmp_path / "state", "g0", b.path)
    (made,) = (i for i, step in steps_of(prepared, STAGE1) if isinstance(step, Clone3Init))
    (awaited,) = (i for i, step in steps_of(prepared, PARENT) if isinstance(step, AwaitPid))
    fds, traces = descriptors(), collect_traces()
    for how in ({}, {"kill_step": made}, {"kill_step": made | UNTOLD}):
        fault = {"fail_step": awaited, "fail_errno": EXDEV, **how}
        with pytest.raises(PyrunError, match="EXDEV|cross-device"):
            create.run_prepared(store, prepared, print, fault=fault)
        assert_gone(store, fds, f"{how}")
        leaks = find_leaks(traces)
        assert not leaks, f"{how}: {leaks}"


def test_two_creates_of_one_id(bundle: BundleMaker, tmp_path: Path) -> None:
    """One wins, the other says so and harms nothing."""
    b = bundle(["sleep", "60"])
    store, first = prepare(tmp_path / "state", "two", b.path)
    _, second = prepare(tmp_path / "state", "two", b.path)
    create.run_prepared(store, first, print).close()
    with pytest.raises(PyrunError, match="exist"):
        create.run_prepared(store, second, print)
    assert store.open("two").status() == "created"
    delete(store, "two", print, force=True)
    while children():
        os.wait()


def test_many_at_once(bundle: BundleMaker, tmp_path: Path) -> None:
    """Twenty processes create one id at the same moment: exactly one container comes of it."""
    b = bundle(["sleep", "60"])
    store, prepared = prepare(tmp_path / "state", "race", b.path)
    (tmp_path / "state").mkdir(mode=0o700)
    go = time.monotonic() + 0.2
    pids = []
    for _ in range(20):
        pid = os.fork()
        if pid == 0:
            code = 9
            try:
                time.sleep(max(0.0, go - time.monotonic()))
                run_plan(prepared.plan, fault={})
                code = 0
            except StepFailed as e:
                code = 1 if e.errno == errno.EEXIST else 2
            finally:
                os._exit(code)
        pids.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    assert sorted(codes) == [0] + [1] * 19
    assert store.open("race").status() == "created"
    delete(store, "race", print, force=True)
