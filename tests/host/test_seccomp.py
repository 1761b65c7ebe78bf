"""Seccomp by its effect in a container: rules with and without noNewPrivileges, tight profiles, and a listener."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import select
import socket
import struct
import tempfile
import threading
from pathlib import Path

import pytest

from tests.support.container.bundle import BundleMaker
from tests.support.container.runner import Runner
from tests.support.serving import end_threads

SIGSYS = 31
NOTIF_RECV, NOTIF_SEND = 0xC0502100, 0xC0182101
NOTIF_FLAG_CONTINUE = 1
# What busybox's static binary itself needs to print a word and go, and what the runtime needs behind the filter.
ECHO = """
    brk arch_prctl set_tid_address set_robust_list rseq prlimit64 mprotect exit_group writev getrandom
    readlinkat readlink mmap munmap getuid geteuid prctl setuid setgid getgid fstat newfstatat ioctl
    rt_sigaction rt_sigprocmask uname
""".split()
RUNTIME = ["read", "write", "execve"]


def rule(names: list[str], action: str, **more: object) -> dict[str, object]:
    return {"names": names, "action": action, **more}


@pytest.mark.parametrize("nnp", [True, False], ids=["noNewPrivileges", "with CAP_SYS_ADMIN"])
def test_errno(bundle: BundleMaker, pyrun: Runner, nnp: bool) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [rule(["mkdir", "mkdirat"], "SCMP_ACT_ERRNO", errnoRet=errno.EXDEV)],
    }
    b = bundle(["mkdir", "/x"], process={"noNewPrivileges": nnp}, linux={"seccomp": profile})
    result = pyrun.run(b)
    assert result.rc == 1 and "Invalid cross-device link" in result.err, result.describe()
    mode = pyrun.run(b.update(process={"args": ["grep", "-E", "Seccomp:|NoNewPrivs", "/proc/self/status"]})).ok().out
    assert mode.split() == ["NoNewPrivs:", str(int(nnp)), "Seccomp:", "2"]


@pytest.mark.parametrize("nnp", [True, False], ids=["noNewPrivileges", "with CAP_SYS_ADMIN"])
def test_a_profile_needs_to_allow_little_for_us(bundle: BundleMaker, pyrun: Runner, nnp: bool) -> None:
    """An allow-list with what the program itself calls, and read, write, execve (and capset) is enough."""
    allowed = [*ECHO, *RUNTIME, *([] if nnp else ["capset"])]
    profile = {"defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": [rule(allowed, "SCMP_ACT_ALLOW")]}
    b = bundle(["/bin/busybox", "echo", "tight"], process={"noNewPrivileges": nnp}, linux={"seccomp": profile})
    assert pyrun.run(b).ok().out == "tight\n"
    id = pyrun.create(b)
    pyrun("start", id).ok()
    pyrun.wait_status(id, "stopped")


def test_no_capability_is_left_over(bundle: BundleMaker, pyrun: Runner) -> None:
    """CAP_SYS_ADMIN, held for seccomp(2), is gone from every set before the program runs, for root and for others."""
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule(["acct"], "SCMP_ACT_ERRNO")]}
    for uid in (0, 1000):
        b = bundle(
            ["grep", "Cap", "/proc/self/status"],
            process={"noNewPrivileges": False, "user": {"uid": uid, "gid": uid}},
            linux={"seccomp": profile},
        )
        for line in pyrun.run(b).ok().out.splitlines():
            assert not int(line.split()[1], 16) >> 21 & 1, line


@pytest.mark.parametrize("number", [errno.ESRCH, errno.ECANCELED, errno.EINPROGRESS], ids=lambda n: errno.errorcode[n])
def test_an_exec_that_is_refused_is_an_error_whatever_errno_says_so(
    bundle: BundleMaker, pyrun: Runner, number: int
) -> None:
    """Our own words for a child that is gone, and for a caller that gives up, are errnos too."""
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule(["execve"], "SCMP_ACT_ERRNO", errnoRet=number)]}
    b = bundle(["true"], linux={"seccomp": profile})
    pyrun.run(b).fails(1, "/process/args")
    pyrun.run(b, "--detach").fails(1, "/process/args")
    id = pyrun.create(b)
    pyrun("start", id).fails(1, "/process/args")
    pyrun.wait_status(id, "stopped")


def test_kill(bundle: BundleMaker, pyrun: Runner) -> None:
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule(["mkdir", "mkdirat"], "SCMP_ACT_KILL_PROCESS")]}
    assert pyrun.run(bundle(["mkdir", "/x"], linux={"seccomp": profile})).rc == 128 + SIGSYS


def test_exec_gets_the_profile_too(bundle: BundleMaker, pyrun: Runner) -> None:
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule(["mkdir", "mkdirat"], "SCMP_ACT_ERRNO")]}
    id = pyrun.create_started(bundle(["sleep", "60"], linux={"seccomp": profile}))
    assert "Operation not permitted" in pyrun.exec(id, "mkdir", "/x").err
    assert "\t2" in pyrun.exec(id, "grep", "Seccomp:", "/proc/self/status").ok().out
    pyrun.delete(id, "--force").ok()


def test_notify_on_our_own_calls_is_refused(bundle: BundleMaker, pyrun: Runner) -> None:
    """The runtime writes behind the filter; nobody would be there to answer for it."""
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": "/tmp/agent",
        "syscalls": [rule(["write"], "SCMP_ACT_NOTIFY")],
    }
    pyrun.run(bundle(linux={"seccomp": profile})).fails(1, "write", "/linux/seccomp")
    assert pyrun.ids() == []


class Agent(threading.Thread):
    """A seccomp agent: takes one listener, and answers every notification with an errno, or ends at once. passes: it
    lets every call through instead."""

    def __init__(self, answers: bool = True, passes: bool = False) -> None:
        super().__init__(daemon=True)
        self.answers = answers
        self.answer = (0, NOTIF_FLAG_CONTINUE) if passes else (-errno.ENOTBLK, 0)
        self.directory = tempfile.mkdtemp(prefix="a", dir="/tmp")
        self.path = self.directory + "/s"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.bind(self.path)
        self.socket.listen(1)
        self.socket.settimeout(60)
        self.state: dict[str, object] = {}
        self.pids: list[int] = []

    def run(self) -> None:
        connection, _ = self.socket.accept()
        data, fds, _, _ = socket.recv_fds(connection, 65536, 4)
        self.state = json.loads(data)
        poll = select.poll()
        poll.register(fds[0], select.POLLIN)
        while self.answers and any(event & select.POLLIN for _, event in poll.poll(10000)):
            request = bytearray(80)
            fcntl.ioctl(fds[0], NOTIF_RECV, request)
            number, pid = struct.unpack_from("<QI", request)
            self.pids.append(pid)
            fcntl.ioctl(fds[0], NOTIF_SEND, bytearray(struct.pack("<QqiI", number, 0, *self.answer)))
        os.close(fds[0])

    def close(self) -> None:
        end_threads(self)
        self.socket.close()
        os.unlink(self.path)
        os.rmdir(self.directory)


@pytest.mark.parametrize("nnp", [True, False], ids=["noNewPrivileges", "with CAP_SYS_ADMIN"])
def test_listener(bundle: BundleMaker, pyrun: Runner, nnp: bool) -> None:
    """The listener's descriptor reaches the agent, with the container process state of the specification."""
    agent = Agent()
    agent.start()
    try:
        profile = {
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": agent.path,
            "listenerMetadata": "who",
            "syscalls": [rule(["mkdir", "mkdirat"], "SCMP_ACT_NOTIFY")],
        }
        b = bundle(["mkdir", "/x"], process={"noNewPrivileges": nnp}, linux={"seccomp": profile})
        result = pyrun.run(b, id="notified")
    finally:
        agent.close()
    assert result.rc == 1 and "Block device required" in result.err, result.describe()
    assert agent.pids
    assert agent.state["fds"] == ["seccompFd"] and agent.state["metadata"] == "who"
    state = agent.state["state"]
    assert isinstance(state, dict)
    assert state["id"] == "notified" and state["status"] == "creating" and state["bundle"] == str(b.path)
    assert agent.state["pid"] == state["pid"] and isinstance(state["pid"], int) and state["pid"] > 1


@pytest.mark.parametrize("nnp", [True, False], ids=["noNewPrivileges", "with CAP_SYS_ADMIN"])
@pytest.mark.parametrize("verb", ["run", "exec"])
def test_calls_that_pyrun_makes_once_there_is_an_agent(
    bundle: BundleMaker, pyrun: Runner, verb: str, nnp: bool
) -> None:
    """The init waits for its start, and execs, behind the filter: the agent sees that, and may let it through."""
    names = ["read", "close", "execve", "openat", "fcntl", "poll", "ppoll"]
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule(names, "SCMP_ACT_NOTIFY")]}
    agents = [Agent(passes=True) for _ in range(1 if verb == "run" else 2)]
    for agent in agents:
        agent.start()
    try:
        seccomp = {"seccomp": {**profile, "listenerPath": agents[0].path}}
        made = bundle(["cat", "/etc/passwd"], process={"noNewPrivileges": nnp}, linux=seccomp)
        if verb == "run":
            told = pyrun.run(made, timeout=60).ok().out
        else:
            made.update(process={"args": ["sleep", "1000"]})
            id = pyrun.create_started(made)
            config = pyrun.root / id / "config.json"
            config.write_text(config.read_text().replace(agents[0].path, agents[1].path))
            told = pyrun.exec(id, "cat", "/etc/passwd", timeout=60).ok().out
            pyrun.delete(id, "--force").ok()
    finally:
        for agent in agents:
            agent.close()
    assert told.startswith("root:") and agents[-1].pids


def test_an_agent_that_is_not_there(bundle: BundleMaker, pyrun: Runner, tmp_path: Path) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": str(tmp_path / "none"),
        "syscalls": [rule(["mkdir"], "SCMP_ACT_NOTIFY")],
    }
    pyrun.run(bundle(linux={"seccomp": profile})).fails(1, "ENOENT", "/linux/seccomp/listenerPath")
    assert pyrun.ids() == []


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_an_agent_that_ends_leaves_nobody_waiting(bundle: BundleMaker, pyrun: Runner, verb: str) -> None:
    """The last descriptor of the listener went with it, so the call is answered as if there were no agent. pyrun, which
    waits for the program, must not have kept one."""
    agent = Agent(answers=False)
    agent.start()
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": agent.path,
        "syscalls": [rule(["mkdir", "mkdirat"], "SCMP_ACT_NOTIFY")],
    }
    seccomp = {"seccomp": profile}
    args = ["sh", "-c", "sleep 1; mkdir /x"]
    try:
        if verb == "run":
            result = pyrun.run(bundle(args, linux=seccomp), timeout=60)
        else:
            init = Agent(answers=False)
            init.start()
            made = bundle(["sleep", "1000"], linux={"seccomp": {**profile, "listenerPath": init.path}})
            id = pyrun.create_started(made)
            init.close()
            config = pyrun.root / id / "config.json"
            config.write_text(config.read_text().replace(init.path, agent.path))
            result = pyrun.exec(id, *args, timeout=60)
    finally:
        agent.close()
    assert result.rc == 1 and "Function not implemented" in result.err, result.describe()


@pytest.mark.parametrize("verb", ["run", "start", "exec"])
def test_an_agent_that_ends_before_the_program_begins(bundle: BundleMaker, pyrun: Runner, verb: str) -> None:
    """Neither pyrun nor the process that is to begin it may have kept a descriptor of the listener."""
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule(["execve"], "SCMP_ACT_NOTIFY")]}
    with contextlib.ExitStack() as stack:
        agents = [Agent(passes=True), Agent(answers=False)] if verb == "exec" else [Agent(answers=False)]
        for agent in agents:
            agent.start()
            stack.callback(agent.close)
        made = bundle(["sleep", "1000"], linux={"seccomp": {**profile, "listenerPath": agents[0].path}})
        if verb == "run":
            result = pyrun.run(made, timeout=60)
        elif verb == "start":
            result = pyrun("start", pyrun.create(made), timeout=60)
        else:
            id = pyrun.create_started(made)
            config = pyrun.root / id / "config.json"
            config.write_text(config.read_text().replace(agents[0].path, agents[1].path))
            result = pyrun.exec(id, "true", timeout=60)
            pyrun.delete(id, "--force").ok()
    result.fails(255 if verb == "exec" else 1, "execve", "function not implemented")
