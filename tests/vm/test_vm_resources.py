"""Limits that hold, update and events, with controllers that the host has not got."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.support.container.bundle import BundleMaker
from tests.support.container.leaks import CGROUP_ROOT
from tests.support.container.runner import Runner, wait_for

MIB = 1 << 20


def cgroup_of(pyrun: Runner, id: str) -> Path:
    rows = Path(f"/proc/{pyrun.pid(id)}/cgroup").read_text().splitlines()
    return CGROUP_ROOT / next(row for row in rows if row.startswith("0::"))[3:].lstrip("/")


def read(cgroup: Path, *names: str) -> list[str]:
    return [(cgroup / name).read_text().strip() for name in names]


LIMITS: dict[str, Any] = {
    "memory": {"limit": 64 * MIB, "reservation": 8 * MIB, "swap": 96 * MIB},
    "cpu": {"shares": 2048, "quota": 50000, "period": 100000, "burst": 10000, "cpus": "0", "mems": "0"},
    "pids": {"limit": 20},
    "hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}],
}


def test_every_controller(pyrun: Runner, bundle: BundleMaker) -> None:
    cgroup = cgroup_of(pyrun, pyrun.create(bundle(["sleep", "1000"], linux={"resources": LIMITS})))
    files = ("memory.max", "memory.low", "cpu.max", "cpu.max.burst", "cpuset.cpus", "cpuset.mems", "pids.max")
    wanted = [str(64 * MIB), str(8 * MIB), "50000 100000", "10000", "0", "0", "20"]
    assert read(cgroup, *files) == wanted
    assert read(cgroup, "hugetlb.2MB.max") == [str(4 * MIB)]
    assert 100 < int(read(cgroup, "cpu.weight")[0]) < 300


def test_update_changes_the_limits_and_keeps_the_others(pyrun: Runner, bundle: BundleMaker) -> None:
    id = pyrun.create_started(bundle(["sleep", "1000"], linux={"resources": LIMITS}))
    cgroup = cgroup_of(pyrun, id)
    pyrun("update", "--memory", "32M", "--memory-swap", "32M", "--pids-limit", "-1", "--cpu-quota", "20000", id).ok()
    assert read(cgroup, "memory.max", "pids.max", "cpu.max") == [str(32 * MIB), "max", "20000 100000"]
    assert read(cgroup, "memory.low", "cpuset.cpus") == [str(8 * MIB), "0"]
    pyrun("update", "--cpu-period", "50000", id).ok()
    assert read(cgroup, "cpu.max") == ["20000 50000"]
    stored = json.loads((pyrun.root / id / "config.json").read_text())["linux"]["resources"]
    assert stored["memory"]["limit"] == 32 * MIB and stored["cpu"]["cpus"] == "0"


def test_update_limits_the_cgroup_where_the_init_is(pyrun: Runner, bundle: BundleMaker) -> None:
    """It has moved, and another of the old name is somebody else's."""
    id = pyrun.create_started(bundle(["sleep", "1000"], linux={"cgroupsPath": "/moves/old", "resources": LIMITS}))
    old, new = CGROUP_ROOT / "moves/old", CGROUP_ROOT / "moves/new"
    new.mkdir()
    (new / "cgroup.procs").write_text(str(pyrun.pid(id)))
    old.rmdir()
    old.mkdir()
    pyrun("update", "--pids-limit", "7", id).ok()
    assert read(new, "pids.max") == ["7"] and read(old, "pids.max") == ["max"]
    pyrun("delete", "--force", id).ok()
    for made in (old, new, new.parent):
        if made.exists():
            made.rmdir()


def test_a_failed_update_leaves_the_old_limits(pyrun: Runner, bundle: BundleMaker) -> None:
    id = pyrun.create_started(bundle(["sleep", "1000"], linux={"resources": LIMITS}))
    cgroup = cgroup_of(pyrun, id)
    change = json.dumps({"memory": {"limit": 80 * MIB}, "pids": {"limit": 5}, "cpu": {"cpus": "4000"}})
    pyrun("update", "-r", "-", id, input=change).fails(1, "/cpu/cpus")
    assert read(cgroup, "memory.max", "pids.max", "cpuset.cpus") == [str(64 * MIB), "20", "0"]


def test_update_of_a_container_without_limits(pyrun: Runner, bundle: BundleMaker) -> None:
    id = pyrun.create_started(bundle(["sleep", "1000"]))
    pyrun("update", "--memory", "32M", "--cpu-share", "512", id).ok()
    assert read(cgroup_of(pyrun, id), "memory.max") == [str(32 * MIB)]


def test_statistics_of_a_container_without_limits(pyrun: Runner, bundle: BundleMaker) -> None:
    data = json.loads(pyrun("events", "--stats", pyrun.create_started(bundle(["sleep", "1000"]))).ok().out)["data"]
    assert data["memory"]["usage"]["usage"] > 0 and data["memory"]["raw"]["anon"] >= 0
    assert data["pids"]["current"] == 1
    assert data["cpu"]["usage"]["total"] > 0
    assert "2MB" in data["hugetlb"] or data["hugetlb"] == {}


def test_an_out_of_memory_kill_is_an_event(pyrun: Runner, bundle: BundleMaker) -> None:
    script = "sleep 3; head -c 100000000 /dev/zero | tail >/dev/null; sleep 1000"
    limits = {"memory": {"limit": 16 * MIB, "swap": 16 * MIB}}
    id = pyrun.create_started(bundle(["sh", "-c", script], linux={"resources": limits}))
    process = pyrun.popen("events", "--interval", "1h", id, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline()) == {"type": "oom", "id": id}
    pyrun("kill", id, "KILL").ok()
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_a_limit_of_processes_holds(pyrun: Runner, bundle: BundleMaker) -> None:
    limits = {"pids": {"limit": 3}}
    made = bundle(["sh", "-c", "for i in 1 2 3 4 5; do sleep 5 & done; wait"], linux={"resources": limits})
    done = pyrun.run(made)
    assert "can't fork" in done.err, done.describe()


def test_a_paused_container_uses_no_time(pyrun: Runner, bundle: BundleMaker) -> None:
    id = pyrun.create_started(bundle(["sh", "-c", "while :; do :; done"]))
    stat = cgroup_of(pyrun, id) / "cpu.stat"
    pyrun("pause", id).ok()
    before = stat.read_text().splitlines()[0]
    time.sleep(1)
    assert stat.read_text().splitlines()[0] == before
    pyrun("resume", id).ok()
    wait_for(lambda: stat.read_text().splitlines()[0] != before, 20, "it to go on")
