"""pyrun-pod at work: lives of containers, their logs byte for byte, their ends, execs, terminals and lookers-on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyrun.errors import PyrunError
from pyrun.pod.supervisor import Gone, Supervisor, exit_code, read_exits
from tests.support.container.bundle import BundleMaker
from tests.support.container.runner import wait_for
from tests.support.pod.pods import Pod, entries


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


def test_a_second_launch_is_refused(pod: Pod) -> None:
    with pytest.raises(PyrunError, match="runs already"):
        Supervisor.launch(str(pod.directory), "pod")


def test_no_supervisor(tmp_path: Path) -> None:
    with pytest.raises(Gone):
        Supervisor.connect(str(tmp_path))
