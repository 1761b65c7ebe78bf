"""containerd's shim runs containers on pyrun, for ctr; configured as docs/containerd.md says."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.vm.engines.engine import (
    IMAGE,
    Client,
    config_file,
    config_of,
    containers_in,
    pids_named,
    systemctl,
    wait_until,
)

CONF = "/etc/containerd/config.toml"
RUN = ("run", "--runc-binary", "/usr/local/bin/pyrun")
STATE = Path("/run/containerd/runc/default")
CGROUP = Path("/sys/fs/cgroup/default")
LOOP = "touch /ready; while :; do sleep 0.1; done"


@pytest.fixture(scope="module")
def ctr(image: Path) -> Iterator[Client]:
    client = Client("ctr")
    with config_file(CONF, config_of("containerd.md", CONF)):
        systemctl("restart", "containerd")
        client("images", "import", str(image)).ok()
        client(*RUN, "--rm", IMAGE, "first", "true").ok()
        yield client
        systemctl("stop", "containerd")


@pytest.fixture
def c0(ctr: Client) -> Iterator[str]:
    """An id, whose container and task are deleted if the test has left them."""
    yield "c0"
    delete(ctr, "c0")


@pytest.fixture
def running(ctr: Client, c0: str) -> str:
    """A task that sleeps."""
    ctr(*RUN, "-d", "--memory-limit", str(64 << 20), IMAGE, c0, "sleep", "100000").ok()
    return c0


def delete(ctr: Client, id: str) -> None:
    ctr("tasks", "delete", "--force", id)
    ctr("containers", "delete", id)


def task(ctr: Client, id: str) -> list[str]:
    """Its id, pid and status; empty texts when there is none."""
    rows = [line.split() for line in ctr("tasks", "ls").ok().out.splitlines()]
    return next((row for row in rows if row[0] == id), ["", "", ""])


def status(ctr: Client, id: str) -> str:
    return task(ctr, id)[2]


def wait_stopped(ctr: Client, id: str) -> None:
    wait_until(lambda: status(ctr, id) == "STOPPED", f"{id} to stop")


def told(ctr: Client, *options: str) -> dict[str, str]:
    """What a container with these options reads of itself, by the first word of each line."""
    script = """cat /proc/self/status; echo "apparmor $(cat /proc/self/attr/current)"; touch /x; echo written $?
        test -b /dev/nvme0n1; echo disk $?"""
    lines = ctr(*RUN, "--rm", *options, IMAGE, "told", "sh", "-c", script).ok().out.splitlines()
    return {row[0].rstrip(":"): row[-1] for row in (line.split(maxsplit=1) for line in lines if line)}


def wait_ready(ctr: Client, id: str) -> None:
    """Until its LOOP has begun, and so its trap is set."""
    look = ("tasks", "exec", "--exec-id", "look", id, "test", "-e", "/ready")
    wait_until(lambda: ctr(*look).rc == 0, f"{id} to be ready")


@contextmanager
def events(log: Path, last: str) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """What `ctr events` shows meanwhile, up to the topic `last`: topics and events. The list is filled at the end."""
    found: list[tuple[str, dict[str, Any]]] = []

    def is_heard() -> bool:
        subprocess.run(["ctr", "namespaces", "label", "default", "heard=yes"], check=True)
        return log.stat().st_size > 0

    with log.open("w") as out, subprocess.Popen(["ctr", "events"], stdout=out) as process:
        try:
            wait_until(is_heard, "ctr to listen")
            yield found
            wait_until(lambda: f" {last} " in log.read_text(), last)
        finally:
            process.terminate()
    for line in log.read_text().splitlines():
        topic, _, event = line.partition(" default ")[2].partition(" ")
        found.append((topic, json.loads(event)))


def test_run_output_stdin_and_exit_codes(ctr: Client, c0: str) -> None:
    """ctr loses an end of input that comes before the task is there, with any runtime; so a line it is."""
    result = ctr(*RUN, "--rm", IMAGE, c0, "sh", "-c", "read x; echo $x; echo err >&2; exit 7", input="in\n")
    assert (result.rc, result.out) == (7, "in\n") and "err\n" in result.err, result.describe()
    result = ctr(*RUN, "--rm", IMAGE, c0, "no-such-program")
    assert result.rc == 1 and '"no-such-program": executable file not found in $PATH' in result.err


def test_run_on_a_terminal(ctr: Client, c0: str) -> None:
    terminal = ctr.terminal(*RUN, "--rm", "-t", IMAGE, c0, "sh", "-c", "tty; exit 3")
    assert terminal.rc == 3 and "/dev/pts/0" in terminal.out, terminal.describe()


def test_run_on_a_root_of_its_own(ctr: Client, c0: str, busybox_rootfs: Path) -> None:
    result = ctr(*RUN, "--rm", "--rootfs", "--read-only", str(busybox_rootfs), c0, "/bin/cat", "/etc/os-release")
    assert result.ok().out == (busybox_rootfs / "etc" / "os-release").read_text()


def test_run_with_limits(ctr: Client, c0: str) -> None:
    ctr(*RUN, "-d", "--memory-limit", str(64 << 20), "--cpus", "0.5", "--cpu-shares", "512", IMAGE, c0).ok()
    limits = [(CGROUP / c0 / name).read_text() for name in ("memory.max", "cpu.max", "cpu.weight")]
    assert limits == [f"{64 << 20}\n", "50000 100000\n", "59\n"]


def test_run_confined_and_run_privileged(ctr: Client) -> None:
    """--seccomp, --apparmor-default-profile, --cap-drop and --read-only; then --privileged, which has none of it."""
    confined = ("--seccomp", "--apparmor-default-profile", "engines-test", "--cap-drop", "CAP_CHOWN", "--read-only")
    found = told(ctr, *confined)
    assert (found["Seccomp"], found["apparmor"], found["written"]) == ("2", "engines-test (enforce)", "1")
    assert (int(found["CapBnd"], 16) & 1, found["NoNewPrivs"], found["disk"]) == (0, "1", "1")
    found = told(ctr, "--privileged", "--allow-new-privs")
    everything = Path("/proc/1/status").read_text().partition("CapBnd:\t")[2].split()[0]
    assert (found["CapEff"], found["Seccomp"], found["apparmor"]) == (everything, "0", "unconfined")
    assert (found["NoNewPrivs"], found["written"], found["disk"]) == ("0", "0", "0")


def test_run_in_a_scope_of_systemds(ctr: Client, c0: str) -> None:
    unit = ("--runc-systemd-cgroup", "--cgroup", f"system.slice:engines:{c0}")
    ctr(*RUN, "-d", *unit, "--memory-limit", str(64 << 20), IMAGE, c0).ok()
    scope = f"engines-{c0}.scope"
    assert systemctl("show", "-p", "MemoryMax", scope) == f"MemoryMax={64 << 20}\n"
    assert json.loads(ctr("tasks", "metrics", "--format", "json", c0).ok().out)["pids"]["current"] == 1
    delete(ctr, c0)
    assert systemctl("show", "-p", "ActiveState", scope) == "ActiveState=inactive\n"


def test_exec(ctr: Client, running: str) -> None:
    """Its output, stdin, exit code, user and directory, on a terminal and without; and the end of one by a signal."""
    execute = ("tasks", "exec", "--exec-id", "e1")
    script = "cat; pwd; id -u; exit 3"
    result = ctr(*execute, "--cwd", "/tmp", "--user", "5", running, "sh", "-c", script, input="in\n")
    assert (result.rc, result.out) == (3, "in\n/tmp\n5\n"), result.describe()
    assert "/dev/pts/" in ctr.terminal(*execute, "-t", running, "tty").ok().out
    result = ctr(*execute, running, "no-such-program")
    assert result.rc == 1 and '"no-such-program": executable file not found in $PATH' in result.err
    ctr(*execute, "-d", running, "sleep", "4321").ok()
    ctr("tasks", "kill", "--exec-id", "e1", "--signal", "SIGKILL", running).ok()
    wait_until(lambda: not pids_named("sleep", "4321"), "the exec to end")
    assert status(ctr, running) == "RUNNING"


def test_ps(ctr: Client, running: str) -> None:
    ctr("tasks", "exec", "-d", "--exec-id", "e1", running, "sleep", "4321").ok()
    rows = [line.split() for line in ctr("tasks", "ps", running).ok().out.splitlines()[1:]]
    wanted = {*pids_named("sleep", "100000"), *pids_named("sleep", "4321")}
    assert {int(row[0]) for row in rows} == wanted and any("e1" in " ".join(row) for row in rows)


def test_attach(ctr: Client, c0: str) -> None:
    ctr(*RUN, "-d", IMAGE, c0, "sh", "-c", "while :; do echo tick; sleep 0.2; done").ok()
    with subprocess.Popen(["ctr", "tasks", "attach", c0], stdout=subprocess.PIPE, text=True) as attached:
        assert attached.stdout and attached.stdout.readline() == "tick\n"
        ctr("tasks", "kill", "-s", "SIGKILL", c0).ok()
        attached.communicate(timeout=60)
    assert attached.returncode == 137


def test_kill_with_a_signal(ctr: Client, c0: str) -> None:
    ctr(*RUN, "-d", IMAGE, c0, "sh", "-c", f"trap 'exit 5' USR1; {LOOP}").ok()
    wait_ready(ctr, c0)
    ctr("tasks", "kill", "-s", "SIGUSR1", c0).ok()
    wait_stopped(ctr, c0)
    assert "exit code 5" in ctr("tasks", "delete", c0).ok().err


def test_pause_and_resume(ctr: Client, running: str) -> None:
    frozen = CGROUP / running / "cgroup.freeze"
    ctr("tasks", "pause", running).ok()
    assert (status(ctr, running), frozen.read_text()) == ("PAUSED", "1\n")
    ctr("tasks", "resume", running).ok()
    assert (status(ctr, running), frozen.read_text()) == ("RUNNING", "0\n")


def test_metrics_are_those_of_the_cgroup(ctr: Client, running: str) -> None:
    ctr("tasks", "exec", "-d", "--exec-id", "e1", running, "sh", "-c", "while :; do :; done").ok()
    usage_before = cpu_usage(running)
    metrics = json.loads(ctr("tasks", "metrics", "--format", "json", running).ok().out)
    assert metrics["pids"]["current"] == 2
    assert metrics["memory"]["usage_limit"] == 64 << 20
    current = int((CGROUP / running / "memory.current").read_text())
    assert abs(metrics["memory"]["usage"] - current) < 1 << 20
    assert 0 < usage_before <= metrics["cpu"]["usage_usec"] <= cpu_usage(running)


def cpu_usage(id: str) -> int:
    usage = re.search(r"usage_usec (\d+)", (CGROUP / id / "cpu.stat").read_text())
    assert usage
    return int(usage[1])


def test_events_of_a_life(ctr: Client, c0: str, tmp_path: Path) -> None:
    with events(tmp_path / "events", "/containers/delete") as seen:
        ctr(*RUN, "-d", IMAGE, c0).ok()
        ctr("tasks", "exec", "--exec-id", "e1", c0, "sh", "-c", "exit 3")
        ctr("tasks", "pause", c0).ok()
        ctr("tasks", "resume", c0).ok()
        ctr("tasks", "kill", "-s", "SIGKILL", c0).ok()
        wait_stopped(ctr, c0)
        delete(ctr, c0)
    topics = [topic.removeprefix("/tasks/") for topic, _ in seen if topic.startswith("/tasks/")]
    assert topics == ["create", "start", "exec-added", "exec-started", "exit", "paused", "resumed", "exit", "delete"]
    assert [event["exit_status"] for topic, event in seen if topic == "/tasks/exit"] == [3, 137]


def test_the_event_of_an_oom_kill(ctr: Client, c0: str, tmp_path: Path) -> None:
    """The shim listens a moment after the start, as it does for runc, and until the end: so this eats until it has
    heard.
    """
    log = tmp_path / "events"
    with events(log, "/containers/delete") as seen:
        eat = "until [ -e /end ]; do tail /dev/zero; code=$?; sleep 0.5; done; exit $code"
        ctr(*RUN, "-d", "--memory-limit", str(16 << 20), IMAGE, c0, "sh", "-c", eat).ok()
        wait_until(lambda: " /tasks/oom " in log.read_text(), "the event")
        ctr("tasks", "exec", "--exec-id", "e1", c0, "touch", "/end").ok()
        wait_stopped(ctr, c0)
        delete(ctr, c0)
    assert ("/tasks/oom", {"container_id": c0}) in seen, seen
    assert [event["exit_status"] for topic, event in seen if topic == "/tasks/exit" and event["id"] == c0] == [137]


def test_rounds_of_run(ctr: Client) -> None:
    """The same id again: nothing of the last round is in the way."""
    for _ in range(3):
        assert ctr(*RUN, "--rm", IMAGE, "again", "echo", "x").ok().out == "x\n"
    assert containers_in(STATE) == []


def test_rounds_of_start_and_stop(ctr: Client, running: str) -> None:
    """One container, one task after the other, all of pyrun's."""
    for _ in range(3):
        assert (STATE / running / "record").exists()
        ctr("tasks", "kill", "-s", "SIGKILL", running).ok()
        wait_stopped(ctr, running)
        assert "exit code 137" in ctr("tasks", "delete", running).ok().err
        assert containers_in(STATE) == []
        ctr("tasks", "start", "-d", running).ok()


def test_the_shim_is_killed(ctr: Client, running: str) -> None:
    """The container goes with it, and its id is free again."""
    (shim,) = pids_named("containerd-shim-runc-v2", running)
    os.kill(shim, signal.SIGKILL)
    wait_until(lambda: not containers_in(STATE), "containerd to have it cleaned up")
    assert not pids_named("sleep", "100000"), "the container outlived its shim's clean-up"
    assert not (CGROUP / running).exists()
    delete(ctr, running)
    ctr(*RUN, "-d", IMAGE, running).ok()
    assert status(ctr, running) == "RUNNING"


def test_containerd_is_killed_and_comes_back(ctr: Client, running: str) -> None:
    """systemd starts it again; the shim and its container know nothing of it."""
    (daemon,) = pids_named("containerd")
    os.kill(daemon, signal.SIGKILL)
    wait_until(lambda: pids_named("containerd") not in ([], [daemon]), "systemd to start it again")
    wait_until(lambda: ctr("version").rc == 0, "it to answer")
    assert status(ctr, running) == "RUNNING"
    assert ctr("tasks", "exec", "--exec-id", "e1", running, "echo", "inside").ok().out == "inside\n"


def test_a_container_ends_while_containerd_is_down(ctr: Client, c0: str) -> None:
    ctr(*RUN, "-d", IMAGE, c0, "sh", "-c", f"trap 'exit 5' TERM; {LOOP}").ok()
    wait_ready(ctr, c0)
    init = int(task(ctr, c0)[1])
    systemctl("stop", "containerd")
    os.kill(init, signal.SIGTERM)
    wait_until(lambda: not Path("/proc", str(init)).exists(), "it to end")
    systemctl("start", "containerd")
    wait_stopped(ctr, c0)
    assert "exit code 5" in ctr("tasks", "delete", c0).ok().err
