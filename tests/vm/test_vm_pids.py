"""The limit of processes, and freezing what would rather not."""

from __future__ import annotations

from tests.support.container.bundle import BundleMaker
from tests.support.container.runner import Runner, wait_for
from tests.support.vm.cgroup import Cgroup, resources

BOMB = "bomb() { bomb | bomb & }; bomb 2>/dev/null; while :; do sleep 1; done"


def test_a_fork_bomb_stops_at_the_limit(pyrun: Runner, bundle: BundleMaker) -> None:
    id = pyrun.create_started(bundle(["sh", "-c", BOMB], linux=resources(pids={"limit": 24})))
    cgroup = Cgroup(pyrun, id)
    wait_for(lambda: cgroup.counter("pids.events", "max") > 0, 30, "the bomb to reach the limit")
    assert max(cgroup.number("pids.current") for _ in range(200)) <= 24
    pyrun.delete(id, "--force").ok()
    assert not cgroup.path.exists()


def test_the_limit_holds_for_exec(pyrun: Runner, bundle: BundleMaker) -> None:
    id = pyrun.create_started(bundle(["sleep", "1000"], linux=resources(pids={"limit": 3})))
    forks = ["sh", "-c", "sleep 1 & sleep 1 & wait"]
    pyrun("update", "--pids-limit", "4", id).ok()
    pyrun.exec(id, *forks).ok()
    pyrun("update", "--pids-limit", "3", id).ok()
    assert pyrun.exec(id, *forks).rc != 0
    pyrun("update", "--pids-limit", "-1", id).ok()
    pyrun.exec(id, *forks).ok()


def test_exec_needs_no_more_than_its_own_process(pyrun: Runner, bundle: BundleMaker) -> None:
    id = pyrun.create_started(bundle(["sleep", "1000"], linux=resources(pids={"limit": 2})))
    cgroup = Cgroup(pyrun, id)
    pyrun.exec(id, "true").ok()
    assert cgroup.counter("pids.events", "max") == 0


def test_a_full_container_can_be_looked_into(pyrun: Runner, bundle: BundleMaker) -> None:
    """The process is moved in, which the kernel does not count (pids.max), as with runc and crun; it can't fork."""
    id = pyrun.create_started(bundle(["sleep", "1000"], linux=resources(pids={"limit": 1})))
    own = pyrun.exec(id, "sh", "-c", "read -r own </proc/self/cgroup; echo $own").ok().out
    assert own == "0::/\n"
    assert "fork" in pyrun.exec(id, "sh", "-c", "(true) || echo refused").err


def test_one_process_is_enough_to_start(pyrun: Runner, bundle: BundleMaker) -> None:
    """What sets the container up is not counted: a limit of one lets one process run, and no second one."""
    made = bundle(["sh", "-c", "(true) || echo refused"], linux=resources(pids={"limit": 1}))
    assert "fork" in pyrun.run(made).err


def test_freezing_under_load(pyrun: Runner, bundle: BundleMaker) -> None:
    """Forks and exits without a pause, and yet everything stands still at once, and goes on."""
    script = "for i in 1 2 3 4; do while :; do /bin/true; done & done; wait"
    id = pyrun.create_started(bundle(["sh", "-c", script], linux=resources(pids={"limit": 64})))
    cgroup = Cgroup(pyrun, id)
    for _ in range(3):
        wait_for(lambda: cgroup.cpu_share(0.3) > 0.3, 10, "the load")
        pyrun("pause", id).ok()
        assert cgroup.counter("cgroup.events", "frozen") == 1
        assert cgroup.cpu_share(0.5) < 0.01
        assert pyrun.state(id)["status"] == "paused"
        pyrun("resume", id).ok()
    assert pyrun.state(id)["status"] == "running"
