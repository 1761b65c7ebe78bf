"""pyrun-pod at work: lives of containers, their logs byte for byte, their ends, execs, terminals and lookers-on."""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyrun.errors import PyrunError
from pyrun.facts import collect_facts
from pyrun.plan.model.plan import Plan
from pyrun.plan.model.steps import PARENT, Label, Step, Yield
from pyrun.plan.pid_holder import plan_pid_holder
from pyrun.pod import messages as m
from pyrun.pod.calls import Gone
from pyrun.pod.ends import read_exits
from pyrun.pod.messages import exit_code
from pyrun.pod.supervisor import PIDS, Supervisor
from tests.support.container.bundle import BundleMaker
from tests.support.container.runner import wait_for
from tests.support.pod.pods import Pod, entries, text_of


@pytest.fixture
def pod(bundle: BundleMaker, tmp_path: Path, leak_check: None) -> Iterator[Pod]:
    made = Pod(tmp_path, bundle)
    yield made
    made.close()


def test_a_life(pod: Pod) -> None:
    """Created, started, ended: the log, the event, the record, and nothing after the drop."""
    made = pod.create("c1", ["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert pod.known("c1") is not None
    assert os.readlink(f"/proc/{made.pid}/fd/0") == "/dev/null"
    assert int(Path(f"/proc/{made.pid}/stat").read_text().rpartition(")")[2].split()[1]) == pod.pid
    before = time.time_ns()
    pod.start("c1")
    event = pod.ended("c1")
    assert exit_code(event.status) == event.exit_code == 7
    assert event.pid == made.pid and before <= event.ended_ns <= time.time_ns()
    assert sorted(entries(pod.log("c1"))) == [("stderr", "F", b"err"), ("stdout", "F", b"out")]
    recorded = read_exits(str(pod.directory))["c1"]
    assert (recorded.pid, recorded.start, recorded.status) == (made.pid, event.start, event.status)
    pod.remove("c1")
    assert pod.supervisor.hello() == [] and read_exits(str(pod.directory)) == {}


def test_events_are_kept_until_the_drop(pod: Pod) -> None:
    pod.sh("c1", "exit 3")
    assert pod.ended("c1").exit_code == 3
    pod.supervisor.close()
    again = Supervisor.connect(str(pod.directory))
    wait_for(lambda: again.read_event() is not None, 10, "the event")
    again.close()


def test_killed_by_a_signal(pod: Pod) -> None:
    made = pod.run("c1", ["sleep", "1000"])
    signal.pidfd_send_signal(made.pidfd(), signal.SIGKILL)
    assert pod.ended("c1").status == signal.SIGKILL


def test_a_create_that_fails_says_why_and_leaves_nothing(pod: Pod) -> None:
    with pytest.raises(PyrunError, match="executable file not found in \\$PATH") as caught:
        pod.create("c1", ["no-such-program"])
    assert caught.value.pointer == "/process/args/0"
    assert pod.supervisor.hello() == [] and pod.store.ids() == []
    assert os.listdir(pod.directory / "exits") == []
    assert pod.sh("c1", "exit 0").pid and pod.ended("c1").exit_code == 0


def test_end_is_refused_while_one_runs(pod: Pod) -> None:
    pod.run("c1", ["sleep", "1000"])
    with pytest.raises(PyrunError, match="still runs"):
        pod.supervisor.end()
    with pytest.raises(PyrunError, match="still runs"):
        pod.supervisor.drop("c1")


def test_told_to_end_it_goes_with_its_last_container(pod: Pod) -> None:
    """As a shutdown tells all processes; what they say at their end is in their logs."""
    made = pod.sh("c1", "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.1; done")
    wait_for(lambda: text_of(pod.log("c1")) == b"up\n", 60, "its word")
    held = os.pidfd_open(pod.pid)
    signal.pidfd_send_signal(held, signal.SIGTERM)
    wait_for(lambda: refused(pod), 60, "a refusal of what is new")
    assert pod.known("c1") is not None, "its container goes on"
    signal.pidfd_send_signal(made.pidfd(), signal.SIGTERM)
    assert select.select([held], [], [], 60)[0], "it ends"
    os.close(held)
    assert text_of(pod.log("c1")) == b"up\nbye\n"
    assert exit_code(read_exits(str(pod.directory))["c1"].status) == 7
    assert not (pod.directory / "sock").exists()


def refused(pod: Pod) -> bool:
    """Whether it begins nothing new; what it began is removed."""
    try:
        pod.create("new", ["true"])
    except PyrunError as error:
        assert "begins nothing new" in str(error)
        return True
    pod.remove("new")
    return False


def test_told_twice_it_kills(pod: Pod) -> None:
    """The second time is the end of the 30 s that who does not hear of it has."""
    pod.run("c1", ["sleep", "1000"])
    held = os.pidfd_open(pod.pid)
    signal.pidfd_send_signal(held, signal.SIGTERM)
    wait_for(lambda: refused(pod), 60, "a refusal of what is new")
    signal.pidfd_send_signal(held, signal.SIGTERM)
    assert select.select([held], [], [], 60)[0], "it ends"
    os.close(held)
    assert read_exits(str(pod.directory))["c1"].status == signal.SIGKILL


def test_a_second_launch_is_refused(pod: Pod) -> None:
    with pytest.raises(PyrunError, match="runs already"):
        Supervisor.launch(str(pod.directory), "pod")


def test_killed_before_it_begins(tmp_path: Path) -> None:
    """While systemd makes its unit."""

    def kill(pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    with pytest.raises(PyrunError, match="ended by signal 9 before it began"):
        Supervisor.launch(str(tmp_path), "pod", around=kill)
    assert os.listdir(tmp_path) == []


def test_no_supervisor(tmp_path: Path) -> None:
    with pytest.raises(Gone):
        Supervisor.connect(str(tmp_path))


@pytest.mark.parametrize("userns", [False, True], ids=["node", "userns"])
def test_a_shared_pid_namespace(pod: Pod, tmp_path: Path, userns: bool) -> None:
    """Its process 1 has nothing that a container could come to, reaps orphans, and ends with all that is in it."""
    user = None
    if userns:
        unshare = subprocess.Popen(["unshare", "-U", "cat"], stdin=subprocess.PIPE)
        ours = os.stat("/proc/self/ns/user").st_ino
        wait_for(lambda: os.stat(f"/proc/{unshare.pid}/ns/user").st_ino != ours, 10, "the user namespace")
        for file in ("gid_map", "uid_map"):
            Path(f"/proc/{unshare.pid}/{file}").write_text("0 100000 65536\n")
        user = f"/proc/{unshare.pid}/ns/user"
    one = pod.supervisor.hold_pids(collect_facts(), user)
    if userns:
        assert os.stat(f"/proc/{one.pid}/ns/user").st_ino == os.stat(user or "").st_ino
        unshare.communicate()
    assert os.listdir(f"/proc/{one.pid}/root/") == []
    assert {os.readlink(f"/proc/{one.pid}/fd/{n}") for n in os.listdir(f"/proc/{one.pid}/fd")} <= {"/dev/null"} | {
        text for n in "12" if (text := os.readlink(f"/proc/{one.pid}/fd/{n}")).startswith("pipe:")
    }
    status = Path(f"/proc/{one.pid}/status").read_text()
    assert "CapPrm:\t0000000000000000" in status and "NoNewPrivs:\t1" in status and "NSpid:" in status
    alone = "n=0; while set -- /proc/[0-9]*; [ $# -gt 2 ] && [ $n -lt 300 ]; do n=$((n + 1)); sleep 0.1; done"
    script = f"sh -c '(sleep 0.1; exit 3) & exit 0'; {alone}; echo /proc/$$; echo $*; exec sleep 1000"
    b = pod.bundles(["sh", "-c", script])
    namespaces = [ns for ns in b.config["linux"]["namespaces"] if ns["type"] != "pid"]
    b.config["linux"]["namespaces"] = [*namespaces, {"type": "pid", "path": f"/proc/{one.pid}/ns/pid"}]
    b.save()
    pod.run("c1", [], bundle=b)
    if not userns:  # where the container would have to be of that user namespace, too
        wait_for(lambda: text_of(pod.log("c1")).count(b"\n") == 2, 60, "the list")
        own, first, *rest = text_of(pod.log("c1")).split()
        assert first == b"/proc/1" and rest == [own], "no zombie"
    signal.pidfd_send_signal(one.pidfd(), signal.SIGKILL)
    assert {pod.ended("c1").status} == {signal.SIGKILL}
    wait_for(lambda: (k := pod.known(PIDS)) is not None and k.state == 3, 10, "its end")
    pod.supervisor.drop(PIDS)
    one.close()


def with_yield(code: int) -> Plan:
    """A plan that makes a process, with a Yield in it as a systemd scope's has."""
    plan = plan_pid_holder(collect_facts())
    lanes: list[list[Step | Label]] = [list(lane) for lane in plan.lanes]
    lanes[PARENT].insert(-3, Yield(code=code))
    return Plan(lanes, plan.slots, plan.inherit, plan.keep_fds)


def test_a_plan_that_yields(pod: Pod) -> None:
    """As with a systemd scope: the client acts in the middle, and may refuse."""
    told: list[tuple[int, int]] = []
    plan = with_yield(7)
    with pod.supervisor._run(
        m.request(m.CREATE, "y1"), plan, [], 10, on_yield=lambda code, pid: told.append((code, pid))
    ) as (reply, fds, _):
        assert told == [(7, reply.pid)]
        os.close(fds[0])

    def refuse(code: int, pid: int) -> None:
        raise PyrunError("no")

    with (
        pytest.raises(PyrunError, match="^no$"),
        pod.supervisor._run(m.request(m.CREATE, "y2"), plan, [], 10, on_yield=refuse),
    ):
        pass
    assert [k.ctr for k in pod.supervisor.hello()] == ["y1"]
    os.kill(reply.pid, signal.SIGKILL)
    assert pod.ended("y1").status == signal.SIGKILL


def test_kills_for_want_of_memory_are_counted(pod: Pod, tmp_path: Path) -> None:
    """By the memory.events of the cgroup, as it is at the end of the init. (With a real one: tests/vm.)"""
    events = tmp_path / "memory.events"
    events.write_text("low 0\nhigh 0\nmax 7\noom 3\noom_kill 0\noom_group_kill 9\n")
    request = m.request(m.CREATE, "y1", path=str(tmp_path))
    with pod.supervisor._run(request, plan_pid_holder(collect_facts()), [], 10) as (reply, fds, _):
        os.close(fds[0])
    events.write_text("low 0\nhigh 0\nmax 7\noom 3\noom_kill 12\noom_group_kill 9\n")
    os.kill(reply.pid, signal.SIGKILL)
    assert pod.ended("y1").oom_kills == 12
    assert read_exits(str(pod.directory))["y1"].oom_kills == 12


def test_limits_are_those_of_who_launched_it(pod: Pod) -> None:
    """The supervisor's own soft limit of descriptors is its hard one, but no container's is."""
    ours = resource.getrlimit(resource.RLIMIT_NOFILE)
    made = pod.create("c1", ["sleep", "1000"], bundle=pod.bundles(["sleep", "1000"], process={"rlimits": []}))
    assert resource.prlimit(made.pid, resource.RLIMIT_NOFILE) == ours


def test_a_second_one_of_a_name(pod: Pod) -> None:
    pod.run("c1", ["sleep", "1000"])
    with (
        pytest.raises(PyrunError, match="container c1: there is one of this name"),
        pod.supervisor._run(m.request(m.CREATE, "c1"), plan_pid_holder(collect_facts()), [], 10),
    ):
        pass
