"""pause and resume, ps, events and update, on the cgroup of a container that runs."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.container.bundle import BundleMaker
from tests.support.container.leaks import CGROUP_ROOT
from tests.support.container.open_files import open_files
from tests.support.container.runner import Runner, wait_for

COUNTER = "i=0; while :; do i=$((i + 1)); echo $i > /ticks/count; done"


@pytest.fixture
def counting(bundle: BundleMaker, pyrun: Runner) -> Iterator[tuple[str, Path]]:
    """A container that counts, as fast as it can, and the file to see it in."""
    made = bundle(["sh", "-c", COUNTER]).add_mount("/ticks", "tmpfs", type="tmpfs")  # no disk, which may be slow
    id = pyrun.create_started(made)
    count = Path(f"/proc/{pyrun.pid(id)}/root/ticks/count")
    wait_for(lambda: count.exists() and bool(count.read_text()), 30, "the container to count")
    yield id, count


def cgroup_of(pyrun: Runner, id: str) -> Path:
    rows = Path(f"/proc/{pyrun.pid(id)}/cgroup").read_text().splitlines()
    return CGROUP_ROOT / next(row for row in rows if row.startswith("0::"))[3:].lstrip("/")


def watches(pid: int) -> bool:
    """Whether this process has a cgroup's events open."""
    return any(name.endswith("/cgroup.events") for name in open_files(pid).values())


def stands_still(count: Path) -> bool:
    before = count.read_text()
    time.sleep(0.1)
    return count.read_text() == before


# --- pause and resume -------------------------------------------------------------------------------------------------


def test_pause_stops_everything_and_resume_goes_on(pyrun: Runner, counting: tuple[str, Path]) -> None:
    id, count = counting
    wait_for(lambda: not stands_still(count), 10, "the container to count")
    pyrun("pause", id).ok()
    assert stands_still(count)
    assert pyrun.state(id)["status"] == "paused"
    pyrun("resume", id).ok()
    assert pyrun.state(id)["status"] == "running"
    wait_for(lambda: not stands_still(count), 30, "the container to go on")


def test_pause_and_resume_refuse_the_wrong_status(pyrun: Runner, bundle: BundleMaker) -> None:
    id = pyrun.create_started(bundle(["sleep", "1000"]))
    pyrun("resume", id).fails(1, "container not paused")
    pyrun("pause", id).ok()
    pyrun("pause", id).fails(1, "container not running")
    pyrun("kill", id, "KILL").ok()
    pyrun.wait_status(id, "stopped")
    pyrun("pause", id).fails(1, "container not running")
    pyrun("resume", id).fails(1, "container not paused")
    pyrun("pause", "missing").fails(1, "container does not exist")
    pyrun("resume", "missing").fails(1, "container does not exist")


def test_a_created_container_can_be_paused(pyrun: Runner, bundle: BundleMaker) -> None:
    id = pyrun.create(bundle(["sleep", "1000"]))
    pyrun("pause", id).ok()
    assert pyrun.state(id)["status"] == "paused"
    pyrun("start", id).fails(1, "paused")
    pyrun("resume", id).ok()
    assert pyrun.state(id)["status"] == "created"
    pyrun("start", id).ok()
    assert pyrun.state(id)["status"] == "running"


def test_a_paused_container_dies_of_kill(pyrun: Runner, counting: tuple[str, Path]) -> None:
    id, _ = counting
    pyrun("pause", id).ok()
    pyrun("kill", id, "KILL").ok()
    pyrun.wait_status(id, "stopped")
    pyrun("delete", id).ok()


def test_a_paused_container_is_deleted_by_force(pyrun: Runner, counting: tuple[str, Path]) -> None:
    id, _ = counting
    pyrun("pause", id).ok()
    pyrun("delete", id).fails(1, "not stopped")
    pyrun("delete", "--force", id).ok()
    assert pyrun.ids() == []


# --- ps ---------------------------------------------------------------------------------------------------------------


def test_ps_lists_the_processes_and_those_of_cgroups_below(pyrun: Runner, bundle: BundleMaker) -> None:
    id = pyrun.create_started(bundle(["sh", "-c", "sleep 1000 & sleep 1000 & wait"]))
    cgroup = cgroup_of(pyrun, id)
    wait_for(lambda: len((cgroup / "cgroup.procs").read_text().split()) == 3, 30, "three processes")
    pids = sorted(int(pid) for pid in (cgroup / "cgroup.procs").read_text().split())
    (cgroup / "below").mkdir()
    (cgroup / "below" / "cgroup.procs").write_text(str(pids[-1]))
    assert json.loads(pyrun("ps", "--format", "json", id).ok().out) == pids
    assert pyrun.pid(id) == pids[0]


def test_ps_prints_the_table_of_ps(pyrun: Runner, bundle: BundleMaker) -> None:
    id = pyrun.create_started(bundle(["sleep", "1234"]))
    title, row = pyrun("ps", id).ok().out.splitlines()
    assert title.split()[:2] == ["UID", "PID"]
    assert row.split()[1] == str(pyrun.pid(id)) and row.endswith("sleep 1234")
    assert pyrun("ps", id, "-o", "pid,comm", "-e").ok().out.split() == ["PID", "COMMAND", str(pyrun.pid(id)), "sleep"]
    pyrun("ps", id, "-o", "comm", "-e").fails(1, "couldn't find PID field in ps output")
    pyrun("ps", id, "--no-such-option").fails(1, "--no-such-option")


def test_ps_of_a_stopped_container_is_empty(pyrun: Runner, bundle: BundleMaker) -> None:
    id = pyrun.create_started(bundle(["true"]))
    pyrun.wait_status(id, "stopped")
    assert json.loads(pyrun("ps", "--format", "json", id).ok().out) == []
    pyrun("ps", "missing").fails(1, "container does not exist")


# --- events -----------------------------------------------------------------------------------------------------------


def test_stats_are_one_line_in_the_types_of_runc(pyrun: Runner, counting: tuple[str, Path]) -> None:
    id, _ = counting
    (line,) = pyrun("events", "--stats", id).ok().out.splitlines()
    event = json.loads(line)
    assert (event["type"], event["id"]) == ("stats", id)
    data = event["data"]
    assert {"cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "intel_rdt", "network_interfaces"} == data.keys()
    usage = data["cpu"]["usage"]
    assert usage["total"] > 0 and usage["user"] + usage["kernel"] <= usage["total"] + 2000
    assert data["pids"]["current"] == 1


def test_stats_come_each_interval_until_the_container_stops(pyrun: Runner, counting: tuple[str, Path]) -> None:
    id, _ = counting
    start = time.monotonic()
    process = pyrun.popen("events", "--interval", "100ms", id, stdout=subprocess.PIPE)
    assert process.stdout is not None
    events = [json.loads(process.stdout.readline()) for _ in range(3)]
    assert 0.3 <= time.monotonic() - start < 10
    totals = [event["data"]["cpu"]["usage"]["total"] for event in events]
    assert totals == sorted(totals)
    while totals[-1] == totals[0]:  # on a busy machine it may not have had its turn
        totals.append(json.loads(process.stdout.readline())["data"]["cpu"]["usage"]["total"])
    pyrun("kill", id, "KILL").ok()
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_events_of_an_idle_container_end_at_once_with_it(pyrun: Runner, bundle: BundleMaker) -> None:
    id = pyrun.create_started(bundle(["sleep", "1000"]))
    process = pyrun.popen("events", "--interval", "1h", id, stdout=subprocess.PIPE)
    wait_for(lambda: watches(process.pid), 20, "events to watch the cgroup")
    assert process.poll() is None
    pyrun("kill", id, "KILL").ok()
    assert process.communicate(timeout=60)[0] == b""
    assert process.returncode == 0


def test_events_refuse_what_does_not_run(pyrun: Runner, bundle: BundleMaker) -> None:
    id = pyrun.create_started(bundle(["true"]))
    pyrun.wait_status(id, "stopped")
    pyrun("events", "--stats", id).fails(1, "not running")
    pyrun("events", "--stats", "missing").fails(1, "container does not exist")
    pyrun("events", "--interval", "0s", id).fails(1, "interval")


# --- update -----------------------------------------------------------------------------------------------------------


def stored(pyrun: Runner, id: str) -> dict[str, dict[str, str]]:
    config = json.loads((pyrun.root / id / "config.json").read_text())
    found: dict[str, dict[str, str]] = config["linux"]["resources"]
    return found


def test_update_from_a_file_and_from_stdin(pyrun: Runner, bundle: BundleMaker, tmp_path: Path) -> None:
    id = pyrun.create_started(bundle(["sleep", "1000"]))
    cgroup = cgroup_of(pyrun, id)
    file = tmp_path / "resources.json"
    file.write_text(json.dumps({"unified": {"cgroup.max.depth": "3"}}))
    pyrun("update", "--resources", file, id).ok()
    assert (cgroup / "cgroup.max.depth").read_text() == "3\n"
    pyrun("update", "--resources", "-", id, input='{"unified": {"cgroup.max.descendants": "4"}}').ok()
    assert (cgroup / "cgroup.max.descendants").read_text() == "4\n"
    assert (cgroup / "cgroup.max.depth").read_text() == "3\n"
    assert stored(pyrun, id)["unified"] == {"cgroup.max.depth": "3", "cgroup.max.descendants": "4"}
    assert pyrun.state(id)["status"] == "running"


def test_update_where_null_stands_for_what_is_absent(pyrun: Runner, bundle: BundleMaker) -> None:
    """Also for the linux section as a whole, and deep in what is given."""
    made = bundle(["sleep", "1000"])
    config = json.loads((made.path / "config.json").read_text())
    config |= dict.fromkeys(("linux", "mounts", "hostname", "domainname"))
    (made.path / "config.json").write_text(json.dumps(config))
    id = pyrun.create_started(made)
    given = {"unified": {"cgroup.max.depth": "3"}}
    for change in (given | {"memory": None}, {"memory": {"limit": None}, "unified": None}):
        pyrun("update", "--resources", "-", id, input=json.dumps(change)).ok()
        assert (cgroup_of(pyrun, id) / "cgroup.max.depth").read_text() == "3\n"
        assert stored(pyrun, id) == given
    pyrun("exec", id, "true").ok()


def test_of_updates_at_once_none_is_lost(pyrun: Runner, bundle: BundleMaker) -> None:
    id = pyrun.create_started(bundle(["sleep", "1000"]))
    names = ["cgroup.max.depth", "cgroup.max.descendants"]
    for number in range(5, 11):
        running = []
        for name in names:
            running.append(pyrun.popen("update", "--resources", "-", id, stdin=subprocess.PIPE))
            assert running[-1].stdin is not None
            running[-1].stdin.write(json.dumps({"unified": {name: str(number)}}).encode())
        for process in running:
            assert process.stdin is not None
            process.stdin.close()  # now both begin
        for process in running:
            process.wait(60)
        assert [process.returncode for process in running] == [0, 0]
        kept = json.loads((pyrun.root / id / "config.json").read_text())["linux"]["resources"]["unified"]
        assert kept == dict.fromkeys(names, str(number))
    assert sorted(path.name for path in (pyrun.root / id).iterdir() if "config" in path.name) == ["config.json"]


def test_an_update_waits_for_another(pyrun: Runner, bundle: BundleMaker) -> None:
    id = pyrun.create_started(bundle(["sleep", "1000"]))
    held = os.open(pyrun.root / id, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    waiting = pyrun.popen("update", "--resources", "-", id, stdin=subprocess.PIPE)
    assert waiting.stdin is not None
    waiting.stdin.write(b'{"unified": {"cgroup.max.depth": "3"}}')
    waiting.stdin.close()
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(1)
    os.close(held)
    assert waiting.wait(60) == 0


def test_a_failed_update_leaves_the_old_limits(pyrun: Runner, bundle: BundleMaker) -> None:
    id = pyrun.create_started(bundle(["sleep", "1000"], linux={"resources": {"unified": {"cgroup.max.depth": "5"}}}))
    cgroup = cgroup_of(pyrun, id)
    change = {"unified": {"cgroup.max.depth": "6", "cgroup.max.descendants": "many"}}
    done = pyrun("update", "-r", "-", id, input=json.dumps(change))
    done.fails(1, "/unified/cgroup.max.descendants", "EINVAL")
    assert (cgroup / "cgroup.max.depth").read_text() == "5\n"
    assert (cgroup / "cgroup.max.descendants").read_text() == "max\n"
    assert stored(pyrun, id) == {"unified": {"cgroup.max.depth": "5"}}


@pytest.mark.parametrize(
    "given, says",
    [
        ("{", "stdin"),
        ("[]", "stdin"),
        ('{"memory": {"limit": "much"}}', "/memory/limit"),
        ('{"memory": {"limit": 4194304}}', "the memory controller is not available"),
        ('{"unified": {"no.such": "1"}}', "there is no controller 'no'"),
        ('{"unified": {"cgroup.nothing": "1"}}', "/unified/cgroup.nothing"),
    ],
)
def test_a_bad_update_changes_nothing(pyrun: Runner, bundle: BundleMaker, given: str, says: str) -> None:
    id = pyrun.create_started(bundle(["sleep", "1000"]))
    before = (pyrun.root / id / "config.json").read_bytes()
    pyrun("update", "--resources", "-", id, input=given).fails(1, says)
    assert (pyrun.root / id / "config.json").read_bytes() == before


def test_update_of_a_controller_that_is_missing_names_it(pyrun: Runner, bundle: BundleMaker) -> None:
    id = pyrun.create_started(bundle(["sleep", "1000"]))
    pyrun("update", "--pids-limit", "7", id).fails(1, "the pids controller is not available", "/pids/limit")
    pyrun("update", "--cpu-quota", "1000", id).fails(1, "the cpu controller is not available")


def test_update_needs_a_container_that_runs(pyrun: Runner, bundle: BundleMaker) -> None:
    id = pyrun.create_started(bundle(["true"]))
    pyrun.wait_status(id, "stopped")
    pyrun("update", "-r", "-", id, input='{"unified": {"cgroup.max.depth": "3"}}').fails(1, "container not running")
    pyrun("update", "--memory", "1M", "missing").fails(1, "container does not exist")


def test_an_update_survives_in_what_exec_reads(pyrun: Runner, bundle: BundleMaker) -> None:
    """The stored config stays a whole config: only linux.resources differs."""
    id = pyrun.create_started(made := bundle(["sleep", "1000"]))
    pyrun("update", "-r", "-", id, input='{"unified": {"cgroup.max.depth": "3"}}').ok()
    config = json.loads((pyrun.root / id / "config.json").read_text())
    assert config["linux"].pop("resources") == {"unified": {"cgroup.max.depth": "3"}}
    assert config == made.config
    assert (pyrun.root / id / "config.json").stat().st_mode & 0o777 == 0o600


def test_create_sets_limits(pyrun: Runner, bundle: BundleMaker) -> None:
    made = bundle(["true"], linux={"resources": {"unified": {"cgroup.max.depth": "2"}}})
    assert (cgroup_of(pyrun, pyrun.create(made)) / "cgroup.max.depth").read_text() == "2\n"


def test_systemd_cgroup_without_systemd(pyrun: Runner, bundle: BundleMaker) -> None:
    if Path("/run/systemd/system").exists():
        pytest.skip("systemd runs here")
    words = ("--systemd-cgroup", "run", "--bundle", bundle().path, "c")
    pyrun(*words).fails(1, "systemd does not run on this machine", "leave --systemd-cgroup out")
    assert pyrun.ids() == []


# --- an init that has moved -------------------------------------------------------------------------------------------


def test_an_init_that_moved_itself_is_followed(pyrun: Runner, counting: tuple[str, Path]) -> None:
    """The record's cgroup is gone: exec, ps, pause, state, events and update go by the process that runs."""
    id, count = counting
    made = cgroup_of(pyrun, id)
    moved = made.with_name(f"{made.name}-moved")
    moved.mkdir()
    try:
        for pid in (made / "cgroup.procs").read_text().split():
            (moved / "cgroup.procs").write_text(pid)
        made.rmdir()
        inside = pyrun.exec(id, "sh", "-c", "grep -h 0:: /proc/1/cgroup /proc/self/cgroup").ok().out.split()
        assert inside == [f"0::/../{moved.name}"] * 2
        pids = (moved / "cgroup.procs").read_text().split()
        assert json.loads(pyrun("ps", "--format", "json", id).ok().out) == sorted(map(int, pids))
        stats = json.loads(pyrun("events", "--stats", id).ok().out)
        assert stats["data"]["pids"]["current"] == len(pids)
        pyrun("pause", id).ok()
        assert stands_still(count)
        assert pyrun.state(id)["status"] == "paused"
        pyrun("resume", id).ok()
        assert pyrun.state(id)["status"] == "running"
        change = json.dumps({"unified": {"cgroup.max.depth": "3"}})
        pyrun("update", "-r", "-", id, input=change).ok()
        assert (moved / "cgroup.max.depth").read_text() == "3\n"
        pyrun("delete", "--force", id).ok()
    finally:
        (moved / "cgroup.kill").write_text("1")
        wait_for(lambda: not (moved / "cgroup.procs").read_text(), 10, "the container to end")
        moved.rmdir()


def test_an_init_beside_us_is_not_frozen_with_us(pyrun: Runner, counting: tuple[str, Path]) -> None:
    id, _ = counting
    made, ours = cgroup_of(pyrun, id), Path("/proc/self/cgroup").read_text().rpartition("0::")[2].strip()
    for pid in (made / "cgroup.procs").read_text().split():
        (CGROUP_ROOT / ours.lstrip("/") / "cgroup.procs").write_text(pid)
    made.rmdir()
    pyrun("pause", id).fails(1, "no cgroup of its own")
    pyrun("events", "--stats", id).fails(1, "no cgroup of its own")
