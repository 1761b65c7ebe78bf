"""What makes a create wait for ever in other runtimes: here an error tells of it, and nothing is left."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.container.bundle import BundleMaker
from tests.support.container.leaks import CGROUP_ROOT
from tests.support.container.runner import REPO, Runner, python_argv, wait_for

DEVNULL = subprocess.DEVNULL
# What a profile may refuse and the handshake needs; exit_group is what a process that gives up needs.
PROFILES = {
    "all": [],
    "write": ["read", "execve", "capset", "close", "exit_group"],
    "exit": ["read", "execve", "capset", "close"],
}


@pytest.mark.parametrize("verb", [["create"], ["run"], ["run", "--detach"]], ids=lambda verb: verb[-1])
@pytest.mark.parametrize("allowed", PROFILES)
def test_a_seccomp_profile_that_refuses_the_handshake(
    pyrun: Runner, bundle: BundleMaker, allowed: str, verb: list[str]
) -> None:
    calls = PROFILES[allowed]
    rules = [{"names": calls, "action": "SCMP_ACT_ALLOW"}] if calls else []
    made = bundle(["true"], linux={"seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}})
    pyrun(*verb, "--bundle", made.path, "one", timeout=60).fails(1, "seccomp profile")
    assert pyrun.ids() == []


def test_its_init_does_not_spin_when_pyrun_is_killed(pyrun: Runner, bundle: BundleMaker, tmp_path: Path) -> None:
    made = bundle(["true"], linux={"seccomp": {"defaultAction": "SCMP_ACT_ERRNO"}})
    pid_file = tmp_path / "pid"
    script = f"sed -n 's/.*\"pid\":\\([0-9]*\\).*/\\1/p' >{pid_file}; kill -KILL $PPID"
    made.update(hooks={"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]})
    pyrun("create", "--bundle", made.path, "one", timeout=60)
    wait_for(pid_file.exists, 10, "the hook")
    wait_for(lambda: not Path(f"/proc/{pid_file.read_text().strip()}").exists(), 10, "the init to end")
    pyrun.delete("one", "--force").ok()


@pytest.mark.parametrize("userns", [False, True])
def test_a_cgroup_that_is_frozen_already(pyrun: Runner, bundle: BundleMaker, userns: bool) -> None:
    path = f"/pyrun-test-frozen-{os.getpid()}"
    directory = CGROUP_ROOT / path[1:]
    directory.mkdir()
    try:
        (directory / "cgroup.freeze").write_text("1")
        made = bundle(["true"], linux={"cgroupsPath": path})
        if userns:
            maps = [{"containerID": 0, "hostID": 100000, "size": 65536}]
            made.update(linux={"uidMappings": maps, "gidMappings": maps}).add_namespace("user")
        pyrun("create", "--bundle", made.path, "one", timeout=60).fails(1, "frozen", "/linux/cgroupsPath")
        assert pyrun.ids() == []
    finally:
        directory.rmdir()


def test_a_namespace_whose_path_is_a_fifo(pyrun: Runner, bundle: BundleMaker, tmp_path: Path) -> None:
    """To open one waits for a writer."""
    os.mkfifo(tmp_path / "fifo")
    made = bundle(["true"]).add_namespace("ipc", str(tmp_path / "fifo"))
    pyrun("create", "--bundle", made.path, "one", timeout=60).fails(1, "/linux/namespaces/5/path", "no namespace")
    assert pyrun.ids() == []


@pytest.mark.parametrize("options", [["--detach"], []], ids=["detach", "foreground"])
def test_an_exec_that_waits_for_a_paused_container_can_be_given_up(
    pyrun: Runner, bundle: BundleMaker, options: list[str]
) -> None:
    id = pyrun.create_started(bundle(["sleep", "1000"]))
    pyrun("pause", id).ok()
    command = pyrun.command("exec", "--ignore-paused", *options, id, "true")
    process = subprocess.Popen(command, stdin=DEVNULL, stdout=DEVNULL, stderr=subprocess.PIPE)
    cgroup = Path(f"/proc/{pyrun.pid(id)}/cgroup").read_text().rpartition("0::")[2].strip()
    procs = CGROUP_ROOT / cgroup[1:] / "cgroup.procs"
    wait_for(lambda: len(procs.read_text().split()) == 2, 10, "the exec to be there")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0 and b"interrupted" in err
    wait_for(lambda: len(procs.read_text().split()) == 1, 10, "nothing to be left of it")
    pyrun("resume", id).ok()


def test_an_exec_whose_container_is_killed_is_told_so(pyrun: Runner, bundle: BundleMaker) -> None:
    """Frozen before its program, so that the kill finds it there; and both die at once."""
    id = pyrun.create_started(bundle(["sleep", "1000"]))
    pyrun("pause", id).ok()
    command = pyrun.command("exec", "--ignore-paused", id, "true")
    process = subprocess.Popen(command, stdin=DEVNULL, stdout=DEVNULL, stderr=subprocess.PIPE)
    cgroup = Path(f"/proc/{pyrun.pid(id)}/cgroup").read_text().rpartition("0::")[2].strip()
    procs = CGROUP_ROOT / cgroup[1:] / "cgroup.procs"
    wait_for(lambda: len(procs.read_text().split()) == 2, 10, "the exec to be there")
    (procs.parent / "cgroup.kill").write_text("1")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and b"container not running" in err, err
    assert b"it ended while the command was being started" in err


@pytest.mark.parametrize("options", [["--detach", "--pid-file", "pid"], []], ids=["as an engine", "foreground"])
def test_an_exec_that_is_killed_alone_is_told_so(
    pyrun: Runner, bundle: BundleMaker, tmp_path: Path, options: list[str]
) -> None:
    """Before its program began, as where the container has no memory left: its container runs still."""
    id = pyrun.create_started(bundle(["sleep", "1000"]))
    init = pyrun.pid(id)
    pyrun("pause", id).ok()
    command = pyrun.command("exec", "--ignore-paused", *options, id, "true")
    process = subprocess.Popen(command, stdin=DEVNULL, stdout=DEVNULL, stderr=subprocess.PIPE, cwd=tmp_path)
    cgroup = Path(f"/proc/{init}/cgroup").read_text().rpartition("0::")[2].strip()
    procs = CGROUP_ROOT / cgroup[1:] / "cgroup.procs"
    wait_for(lambda: len(procs.read_text().split()) == 2, 60, "the exec to be there")
    (pid,) = {int(pid) for pid in procs.read_text().split()} - {init}
    os.kill(pid, signal.SIGKILL)
    said = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 1 and "the command's process was killed by SIGKILL\n" in said, said
    assert "\n  hint: it was killed from outside, or had no memory left" in said and "not running" not in said
    assert not (tmp_path / "pid").exists()
    pyrun("resume", id).ok()
    pyrun("exec", id, "true").ok()
    assert pyrun.pid(id) == init


FLOOD = """
#include <stdlib.h>
#include <unistd.h>
int main(int argc, char **argv)
{
	int listener[] = { 1, 0, 0, 5, 0, -1, 0 }; /* MSG_MEET -1: the number of a seccomp listener */
	while (write(atoi(argv[argc - 1]), listener, sizeof listener) == sizeof listener)
		;
	return 0;
}
"""
AWAIT = """
import sys
from pyrun.executor import StepFailed, run_plan
from pyrun.plan.model.plan import Builder
from pyrun.plan.model.steps import PARENT, Await, Clone3
b = Builder()
b.add(PARENT, Clone3(image=sys.argv[1], load=0, flags=0), Await(point=1, patience_ms=100))
try:
    run_plan(b.plan())
except StepFailed as error:
    print(error.errno)
"""


def test_a_child_that_never_ceases_to_talk(tmp_path: Path) -> None:
    """As who has stolen the socket from an exec may, by CAP_SYS_PTRACE: each word would begin the deadline anew, and
    while there are words nobody looks whether the caller gives up."""
    flood = tmp_path / "flood"
    compile_ = ["cc", "-O2", "-static", "-x", "c", "-o", str(flood), "-"]
    subprocess.run(compile_, input=FLOOD, text=True, check=True)
    command = [python_argv()[0], "-c", AWAIT, str(flood)]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == [str(errno.EPROTO)], done
