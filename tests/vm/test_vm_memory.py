"""Limits of memory, by what they do: the OOM killer, throttling, protection from reclaim, and swap."""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.container.bundle import BundleMaker
from tests.support.container.open_files import open_files
from tests.support.container.runner import Runner, wait_for
from tests.support.vm.cgroup import MIB, Cgroup, allocate, next_event, resources

SCRATCH = "/dev/scratch"
KEEP_THEN_WAIT = "head -c 24000000 /dev/zero > /dev/shm/kept; echo done > /done; sleep 1000"


@pytest.fixture
def swap() -> Iterator[None]:
    """Swap on the scratch disk."""
    subprocess.run(["mkswap", SCRATCH], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["swapon", SCRATCH], check=True)
    yield
    subprocess.run(["swapoff", SCRATCH], check=True)


def test_below_the_limit(pyrun: Runner, bundle: BundleMaker) -> None:
    pyrun.run(bundle(allocate(8), linux=resources(memory={"limit": 16 * MIB}))).ok()


def test_above_the_limit_is_killed(pyrun: Runner, bundle: BundleMaker) -> None:
    """The container's process is killed as by `kill -9`, and the status says so: 128 + 9."""
    done = pyrun.run(bundle(allocate(64), linux=resources(memory={"limit": 16 * MIB})))
    assert done.rc == 137, done.describe()


def test_a_kill_shows_in_events(pyrun: Runner, bundle: BundleMaker) -> None:
    """A child is killed, the container lives on: `events` tells of it as it happens, and the counter agrees."""
    allocating = " ".join(allocate(64))
    script = f"while ! [ -e /go ]; do sleep 0.1; done; {allocating}; echo $? > /part; mv /part /status; sleep 1000"
    made = bundle(["sh", "-c", script], linux=resources(memory={"limit": 16 * MIB}))
    id = pyrun.create_started(made)
    events = pyrun.popen("events", "--interval", "1h", id, stdout=subprocess.PIPE)
    wait_for(lambda: any("memory.events" in link for link in open_files(events.pid).values()), 60, "events to watch")
    (made.rootfs / "go").touch()
    assert next_event(events, "oom")["id"] == id
    wait_for((made.rootfs / "status").exists, 60, "the child's status")
    assert (made.rootfs / "status").read_text() == "137\n"
    assert Cgroup(pyrun, id).counter("memory.events", "oom_kill") == 1
    assert pyrun.state(id)["status"] == "running"
    pyrun("kill", id, "KILL").ok()
    events.communicate(timeout=20)
    assert events.returncode == 0


def test_high_throttles_and_does_not_kill(pyrun: Runner, bundle: BundleMaker) -> None:
    script = f"{' '.join(allocate(24))}; echo $? > /status; sleep 1000"
    made = bundle(["sh", "-c", script], linux=resources(unified={"memory.high": str(8 * MIB)}))
    cgroup = Cgroup(pyrun, pyrun.create_started(made))
    wait_for(lambda: cgroup.counter("memory.events", "high") > 0, 20, "throttling")
    assert cgroup.counter("memory.events", "oom_kill") == 0
    assert not (made.rootfs / "status").exists(), "it got 24 MiB as if there were no limit"


def test_reservation_protects_from_reclaim(pyrun: Runner, bundle: BundleMaker) -> None:
    """Of two siblings with the same file cache, reclaim takes from the one without a reservation."""
    parent = Path("/sys/fs/cgroup/pyrun-vm-low")
    script = "head -c 24000000 /dev/zero > /cache; sync; cat /cache > /dev/null; echo > /done; sleep 1000"
    cgroups = {}
    for name, memory in (("kept", {"reservation": 64 * MIB}), ("taken", {"limit": 256 * MIB})):
        made = bundle(["sh", "-c", script], linux={"cgroupsPath": f"/{parent.name}/{name}", **resources(memory=memory)})
        cgroups[name] = Cgroup(pyrun, pyrun.create_started(made))
        wait_for((made.rootfs / "done").exists, 30, "the cache to fill")
    assert all(cgroup.counter("memory.stat", "file") > 20 * MIB for cgroup in cgroups.values())
    # EAGAIN: less than asked was taken (cgroup-v2.rst, memory.reclaim), as Debian 13 says here; of whom is what counts.
    with suppress(BlockingIOError):
        (parent / "memory.reclaim").write_text("16M")
    assert cgroups["kept"].counter("memory.stat", "file") > 20 * MIB
    assert cgroups["taken"].counter("memory.stat", "file") < 12 * MIB
    pyrun.delete_all()
    parent.rmdir()


@pytest.mark.parametrize(("total", "fits"), [(64, True), (16, False)], ids=["with swap", "without"])
def test_swap(pyrun: Runner, bundle: BundleMaker, swap: None, total: int, fits: bool) -> None:
    """24 MB of tmpfs under 16 MiB of memory: the rest goes to swap, if the limit of both allows it."""
    made = bundle(["sh", "-c", KEEP_THEN_WAIT], linux=resources(memory={"limit": 16 * MIB, "swap": total * MIB}))
    id = pyrun.create_started(made)
    cgroup = Cgroup(pyrun, id)
    assert cgroup.number("memory.swap.max") == (total - 16) * MIB
    if fits:
        wait_for((made.rootfs / "done").exists, 60, "24 MB to be written")
        assert cgroup.number("memory.swap.current") > 6 * MIB
        assert cgroup.counter("memory.events", "oom_kill") == 0
    else:
        wait_for(lambda: cgroup.counter("memory.events", "oom_kill") > 0, 60, "the kill")
        assert cgroup.number("memory.swap.current") == 0


def test_update_raises_the_limit(pyrun: Runner, bundle: BundleMaker) -> None:
    id = pyrun.create_started(bundle(["sleep", "1000"], linux=resources(memory={"limit": 12 * MIB})))
    assert pyrun.exec(id, *allocate(20)).rc == 137
    pyrun("update", "--memory", "64M", id).ok()
    pyrun.exec(id, *allocate(20)).ok()
    pyrun("update", "--memory", "12M", id).ok()
    assert pyrun.exec(id, *allocate(20)).rc == 137


def test_update_sets_what_was_unlimited(pyrun: Runner, bundle: BundleMaker) -> None:
    id = pyrun.create_started(bundle(["sleep", "1000"]))
    pyrun("update", "--memory", "12M", "--memory-reservation", "4M", "--memory-swap", "12M", id).ok()
    cgroup = Cgroup(pyrun, id)
    assert [cgroup.number(f"memory.{name}") for name in ("max", "low", "swap.max")] == [12 * MIB, 4 * MIB, 0]
    assert pyrun.exec(id, *allocate(20)).rc == 137
    pyrun("update", "--memory", "-1", id).ok()
    assert [cgroup.read(f"memory.{name}") for name in ("max", "swap.max")] == ["max", "max"]
    pyrun.exec(id, *allocate(20)).ok()


def test_an_update_below_the_usage_can_be_refused(pyrun: Runner, bundle: BundleMaker) -> None:
    made = bundle(["sh", "-c", KEEP_THEN_WAIT], linux=resources(memory={"limit": 64 * MIB}))
    id = pyrun.create_started(made)
    wait_for((made.rootfs / "done").exists, 30, "24 MB to be written")
    change = '{"memory": {"limit": 8388608, "checkBeforeUpdate": true}}'
    pyrun("update", "-r", "-", id, input=change).fails(1, "rejecting memory limit 8388608 <= usage")
    assert Cgroup(pyrun, id).number("memory.max") == 64 * MIB
    assert pyrun.state(id)["status"] == "running"


def test_true_under_512_kib(pyrun: Runner, bundle: BundleMaker) -> None:
    """The init is charged to the container from its birth, so this shows how little it is: on each processor that it
    comes by the kernel charges 256 KiB ahead (MEMCG_CHARGE_BATCH), and may kill before it has taken back what lies
    with another."""
    made = bundle(["true"], linux=resources(memory={"limit": 512 * 1024, "swap": 512 * 1024}))
    for _ in range(30):
        pyrun.run(made).ok()


def test_what_makes_a_container_is_not_charged_to_it(pyrun: Runner, bundle: BundleMaker) -> None:
    """Its namespaces and stage 1 are not: more than half of 600 KiB. The floor is 256, which the kernel charges ahead
    on each processor that the init comes by, so it is kept on one."""
    one = resources(cpu={"cpus": "0"})
    peaks = []
    for _ in range(9):
        id = pyrun.create_started(bundle(["sleep", "1000"], linux=one))
        peaks.append(Cgroup(pyrun, id).number("memory.peak") // 1024)
        pyrun("delete", "--force", id).ok()
    assert statistics.median(peaks) < 480, peaks
