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
from pathlib import Path

import pytest

from pyrun.errors import PyrunError
from pyrun.executor import StepFailed, run_plan
from pyrun.plan.model.steps import PARENT, STAGE1, STAGE2, Clone3Init, Execve, Park
from pyrun.runtime import create
from pyrun.runtime.delete import delete
from pyrun.runtime.store import Store
from tests.support.container.bundle import Bundle, BundleMaker
from tests.support.container.leaks import collect_traces, find_leaks
from tests.support.executor.faults import EXDEV, children, describe, descriptors, prepare, steps_of

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
        b.update(linux={"uidMappings": MAPS, "gidMappings": MAPS})
        subprocess.run(["chown", "-hR", "100000:100000", b.rootfs], check=True)
        os.chmod(tmp_path, 0o755)
        for path in (tmp_path.parent, tmp_path.parent.parent):
            os.chmod(path, path.stat().st_mode | 0o011)
    return b


def assert_gone(store: Store, fds: dict[str, str], where: str) -> None:
    assert store.ids() == [], where
    assert children() == [], where
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


def test_a_step_after_start_fails(bundle: BundleMaker, tmp_path: Path) -> None:
    """What fails behind the Park is told by start, and the container is stopped then."""
    b = rich(bundle, tmp_path, userns=False)
    store, prepared = prepare(tmp_path / "state", "f1", b.path)
    index = next(i for i, step in steps_of(prepared, STAGE2) if isinstance(step, Execve))
    create.run_prepared(store, prepared, print, fault={"fail_step": index, "fail_errno": EXDEV}).close()
    from pyrun.runtime.start import start

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
    store, prepared = prepare(tmp_path / "state", "k0", b.path)
    traces = collect_traces()
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
        else:
            assert os.WTERMSIG(status) == signal.SIGKILL, where
        delete(store, "k0", print, force=True)
        assert store.ids() == [], where
        leaks = find_leaks(traces)
        assert not leaks, f"{where}: {leaks}"


@pytest.mark.parametrize("userns", [False, True], ids=["plain", "userns"])
def test_a_child_is_killed_at_each_step(bundle: BundleMaker, tmp_path: Path, userns: bool) -> None:
    """SIGKILL of stage 1 or of the init: create says so, and cleans up. UNTOLD: the init is there, and nobody knows."""
    b = rich(bundle, tmp_path, userns=userns)
    store, prepared = prepare(tmp_path / "state", "k1", b.path)
    steps = [i for i, step in steps_of(prepared, STAGE1, STAGE2) if not isinstance(step, (Park, Execve))]
    untold = [i | UNTOLD for i, step in steps_of(prepared, STAGE1) if isinstance(step, Clone3Init)]
    assert untold
    fds, traces = descriptors(), collect_traces()
    for index in [*untold, *steps]:
        where = f"{describe(prepared, index & ~UNTOLD)} {index:#x}"
        try:
            create.run_prepared(store, prepared, print, fault={"kill_step": index}).close()
        except PyrunError as error:
            assert "SIGKILL" in str(error), f"{where}: {error}"
            assert_gone(store, fds, where)
        else:  # a rule led round it, and then it was a whole create
            assert index not in untold, where
            delete(store, "k1", print, force=True)
            while children():
                os.wait()
        leaks = find_leaks(traces)
        assert not leaks, f"{where}: {leaks}"


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
