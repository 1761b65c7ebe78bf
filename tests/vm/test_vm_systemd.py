"""--systemd-cgroup with a systemd that is process 1."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bundle import Bundle, BundleMaker
from tests.support.leaks import CGROUP_ROOT
from tests.support.runner import Runner, wait_for

MIB = 1 << 20


def show(unit: str, *properties: str) -> dict[str, str]:
    words = ["systemctl", "show", unit, *(f"--property={name}" for name in properties)]
    out = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout
    return dict(line.split("=", 1) for line in out.splitlines())


def is_active(unit: str) -> bool:
    return show(unit, "ActiveState")["ActiveState"] == "active"


@pytest.fixture
def limited(pyrun: Runner, bundle: BundleMaker) -> Iterator[Bundle]:
    limits = {"memory": {"limit": 64 * MIB}, "pids": {"limit": 20}, "unified": {"memory.high": str(48 * MIB)}}
    yield bundle(["sleep", "1000"], linux={"resources": limits, "cgroupsPath": "pyruntest.slice:pt:one"})
    pyrun.delete_all()
    subprocess.run(["systemctl", "stop", "pyruntest.slice"], check=True)  # systemd made it for the unit, and keeps it


def make(pyrun: Runner, made: Bundle) -> str:
    id = pyrun.new_id()
    words = pyrun.command("--systemd-cgroup", "create", "--bundle", made.path, id)
    quiet = subprocess.DEVNULL
    assert subprocess.run(words, stdin=quiet, stdout=quiet, timeout=120, check=False).returncode == 0
    return id


def test_the_container_is_in_a_scope_with_its_limits(pyrun: Runner, limited: Bundle) -> None:
    id = make(pyrun, limited)
    cgroup = CGROUP_ROOT / "pyruntest.slice" / "pt-one.scope"
    assert (cgroup / "cgroup.procs").read_text().split() == [str(pyrun.pid(id))]
    unit = show("pt-one.scope", "ActiveState", "Delegate", "Slice", "MemoryMax", "TasksMax", "Description")
    assert unit == {
        "ActiveState": "active",
        "Delegate": "yes",
        "Slice": "pyruntest.slice",
        "MemoryMax": str(64 * MIB),
        "TasksMax": "20",
        "Description": f"pyrun container {id}",
    }
    assert (cgroup / "memory.max").read_text() == f"{64 * MIB}\n"
    assert (cgroup / "memory.high").read_text() == f"{48 * MIB}\n"
    pyrun("start", id).ok()
    pyrun("delete", "--force", id).ok()
    assert not cgroup.exists() and not is_active("pt-one.scope")


def test_limits_outlive_a_reload(pyrun: Runner, limited: Bundle) -> None:
    id = make(pyrun, limited)
    pyrun("update", "--memory", "32M", id).ok()
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    assert show("pt-one.scope", "MemoryMax")["MemoryMax"] == str(32 * MIB)
    assert (CGROUP_ROOT / "pyruntest.slice/pt-one.scope/memory.max").read_text() == f"{32 * MIB}\n"


def test_run_ends_with_its_unit(pyrun: Runner, bundle: BundleMaker) -> None:
    made = bundle(["cat", "/proc/self/cgroup"])
    made.drop_namespace("cgroup")
    id = pyrun.new_id()
    done = pyrun("--systemd-cgroup", "run", "--bundle", made.path, id).ok()
    assert done.out == f"0::/system.slice/pyrun-{id}.scope\n"
    wait_for(lambda: not is_active(f"pyrun-{id}.scope"), 20, "the unit to end")
    assert not Path(f"/sys/fs/cgroup/system.slice/pyrun-{id}.scope").exists()


def test_a_failed_create_leaves_no_unit(pyrun: Runner, limited: Bundle) -> None:
    limited.update(process={"args": ["no-such-program"]})
    words = ("--systemd-cgroup", "run", "--bundle", limited.path, pyrun.new_id())
    pyrun(*words).fails(1, "executable file not found in $PATH")
    assert not is_active("pt-one.scope")
    assert not (CGROUP_ROOT / "pyruntest.slice" / "pt-one.scope").exists()


def test_a_unit_that_exists_is_not_taken_over(pyrun: Runner, limited: Bundle) -> None:
    id = make(pyrun, limited)
    words = ("--systemd-cgroup", "run", "--bundle", limited.path, pyrun.new_id())
    pyrun(*words).fails(1, "pt-one.scope")
    assert pyrun.state(id)["status"] == "created"


def test_the_path_must_be_of_systemds_form(pyrun: Runner, limited: Bundle) -> None:
    limited.update(linux={"cgroupsPath": "/a/b"})
    pyrun("--systemd-cgroup", "run", "--bundle", limited.path, "x").fails(1, "/linux/cgroupsPath", "SLICE:PREFIX:NAME")
