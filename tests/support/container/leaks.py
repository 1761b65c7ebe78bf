"""What a container may not leave behind: mounts, cgroups, processes, another owner of something that all share.

Looked at from inside tests/view, whose mount namespace and cgroup subtree belong to the test run alone; so whatever is
new after a test is that test's.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

CGROUP_ROOT = Path("/sys/fs/cgroup")
INHERITED = "PYRUN_TEST_BESIDE"  # the BESIDE of the run that a run of tests within a test belongs to
BESIDE = set(map(int, os.environ.get(INHERITED, "").split()))  # sessions that run beside the tests; they are no leaks
GRACE_S = 60.0
PF_KTHREAD = 0x200000
# Where systemd runs: workers of udev linger after a device came or went, and a user's manager makes slices and a bus
# when they are first needed.
SYSTEMS_OWN = re.compile(r"\(udev-worker\)$| dbus-daemon$|/user@\d+\.service/\w+\.slice(/dbus\.\w+)?$")


SHARED = ("/", "/dev", "/dev/full", "/dev/null", "/dev/tty", "/dev/urandom", "/dev/zero", "/proc", "/sys", "/tmp")


@dataclass(frozen=True)
class Traces:
    """What there is: mounts as 'ID TARGET TYPE', cgroups by path, processes as 'PID NAME', children of ours that have
    ended and that nobody has waited for as 'PID NAME', and of what is SHARED 'PATH UID:GID MODE'.
    """

    mounts: frozenset[str]
    cgroups: frozenset[str]
    processes: frozenset[str]
    zombies: frozenset[str]
    shared: frozenset[str]

    def new_since(self, before: Traces) -> list[str]:
        """One line for each trace that `before` has not."""
        return [
            *(f"mount {mount}" for mount in sorted(self.mounts - before.mounts)),
            *(f"cgroup {cgroup}" for cgroup in sorted(self.cgroups - before.cgroups)),
            *(f"process {process}" for process in sorted(self.processes - before.processes)),
            *(f"zombie {zombie}" for zombie in sorted(self.zombies - before.zombies)),
            *(f"owner {owner}" for owner in sorted(self.shared - before.shared)),
        ]


def collect_traces() -> Traces:
    """The traces of now."""
    cgroups = frozenset(directory for directory, _, _ in os.walk(CGROUP_ROOT))
    named = ((pid, _name_of(pid)) for cgroup in cgroups for pid in _pids_of(cgroup))
    processes = frozenset(f"{pid} {name}" for pid, name in named if name)
    return Traces(_mounts(), cgroups, processes, _zombies(), _owners())


def find_leaks(before: Traces, grace: float = GRACE_S) -> list[str]:
    """What is there now and was not before. A killed process takes a moment to go, so this waits up to `grace` s."""
    deadline = time.monotonic() + grace
    while (leaks := _leaks(before)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return leaks


def _leaks(before: Traces) -> list[str]:
    return [leak for leak in collect_traces().new_since(before) if not SYSTEMS_OWN.search(leak)]


def _mounts() -> frozenset[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    fields = [line.split() for line in lines]
    return frozenset(f"{field[0]} {field[4]} {field[field.index('-') + 1]}" for field in fields)


def _owners() -> frozenset[str]:
    stats = [(path, os.stat(path)) for path in SHARED]
    return frozenset(f"{path} {stat.st_uid}:{stat.st_gid} {stat.st_mode:o}" for path, stat in stats)


def _zombies() -> frozenset[str]:
    found = set()
    for children in Path("/proc/self/task").glob("*/children"):
        for pid in _numbers(children):
            with suppress(OSError):
                name, _, fields = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
                if fields.split()[0] == "Z" and pid not in BESIDE:
                    found.add(f"{pid} {name}")
    return frozenset(found)


def _numbers(file: Path) -> list[int]:
    try:
        return [int(word) for word in file.read_text().split()]
    except OSError:  # of a cgroup that was just removed, or is threaded, or of a thread that has ended
        return []


def _pids_of(cgroup: str) -> list[int]:
    return _numbers(Path(cgroup, "cgroup.procs"))


def _name_of(pid: int) -> str:
    """Its name; empty when it is gone, runs beside the tests, or is a thread of the kernel, which a machine has in its
    root cgroup.
    """
    try:
        name, _, fields = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
    except OSError:
        return ""
    session, flags = int(fields.split()[3]), int(fields.split()[6])
    return "" if flags & PF_KTHREAD or session in BESIDE else name


@pytest.fixture(autouse=True)
def leak_check() -> Iterator[None]:
    """Fails a test that leaves one of these. Ends after every other fixture, for it starts first."""
    before = collect_traces()
    yield
    leaks = find_leaks(before)
    assert not leaks, "left behind:\n" + "\n".join(leaks)
