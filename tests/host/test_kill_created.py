"""Signals to a container that is created and not started: its parked init, process 1, ends as runc's does."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.container.bundle import BundleMaker
from tests.support.container.runner import Runner

ENDS = ("HUP", "INT", "QUIT", "TERM")
NO_EXIT: dict[str, Any] = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [
        {"names": ["exit", "exit_group", "rt_sigaction", "kill", "tgkill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}
    ],
}


@pytest.mark.parametrize("signal", ENDS)
@pytest.mark.parametrize("seccomp", [None, NO_EXIT], ids=["plain", "no-exit"])
def test_it_ends(pyrun: Runner, bundle: BundleMaker, signal: str, seccomp: dict[str, Any] | None) -> None:
    made = bundle(["sleep", "1000"])
    if seccomp:
        made.config["linux"]["seccomp"] = seccomp
        made.update()
    id = pyrun.create(made)
    pyrun("kill", id, signal).ok()
    pyrun.wait_status(id, "stopped")
    assert pyrun("start", id).rc == 1
    pyrun("delete", id).ok()


def test_it_ends_without_a_pid_namespace(pyrun: Runner, bundle: BundleMaker) -> None:
    made = bundle(["sleep", "1000"])
    made.config["linux"]["namespaces"] = [ns for ns in made.config["linux"]["namespaces"] if ns["type"] != "pid"]
    made.update()
    id = pyrun.create(made)
    pyrun("kill", id).ok()
    pyrun.wait_status(id, "stopped")
    pyrun("delete", id).ok()


@pytest.mark.parametrize("signal", ["0", "USR1", "CHLD", "WINCH", "CONT"])
def test_other_signals_leave_it(pyrun: Runner, bundle: BundleMaker, signal: str) -> None:
    id = pyrun.create(bundle(["sleep", "1000"]))
    pyrun("kill", id, signal).ok()
    pyrun("start", id).ok()
    pyrun.wait_status(id, "running")


def test_signal_0_asks_whether_it_runs(pyrun: Runner, bundle: BundleMaker) -> None:
    id = pyrun.create_started(bundle(["sleep", "1000"]))
    pyrun("kill", id, "0").ok()
    pyrun("kill", id, "KILL").ok()
    pyrun.wait_status(id, "stopped")
    pyrun("kill", id, "0").fails(1, "container not running")


def test_the_program_inherits_no_handler(pyrun: Runner, bundle: BundleMaker) -> None:
    made = bundle(["cp", "/proc/self/status", "/seen"])
    id = pyrun.create(made)
    pyrun("start", id).ok()
    pyrun.wait_status(id, "stopped")
    seen = dict(line.split(":\t") for line in (made.rootfs / "seen").read_text().splitlines())
    assert {int(seen[name], 16) for name in ("SigBlk", "SigIgn", "SigCgt")} == {0}


def test_the_started_process_1_is_the_kernel_s_again(pyrun: Runner, bundle: BundleMaker) -> None:
    """TERM does nothing to a process 1 that has no handler for it, and ours is gone with the exec."""
    id = pyrun.create_started(bundle(["sleep", "1000"]))
    pyrun("kill", id, "TERM").ok()
    pyrun.wait_status(id, "running")
    assert '"running"' in pyrun("state", id).out
