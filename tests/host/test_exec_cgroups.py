"""The cgroups of execs where one can't be removed at once, and where descriptors have run out."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyrun.pod.exec_cgroups import ExecCgroups

pytestmark = pytest.mark.root
PATIENCE_S = 60.0


@pytest.fixture
def parent() -> Iterator[Path]:
    made = Path(f"/sys/fs/cgroup/execs-{os.getpid()}")
    made.mkdir()
    yield made
    for left in [*made.glob("exec-*"), made]:
        left.rmdir()


@contextlib.contextmanager
def living_in(cgroup: Path) -> Iterator[None]:
    with subprocess.Popen(["sleep", "600"]) as process:
        try:
            (cgroup / "cgroup.procs").write_text(str(process.pid))
            yield
        finally:
            process.kill()


def waiting() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "exec-cgroups"]


def lowest_free() -> int:
    os.close(fd := os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
    return fd


@contextlib.contextmanager
def descriptors(count: int) -> Iterator[None]:
    """So many more may be opened."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free() + count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_it_goes_when_its_last_process_has_gone(parent: Path) -> None:
    execs = ExecCgroups()
    name = execs.make(str(parent))
    assert name is not None
    with living_in(parent / name):
        execs.end(str(parent), name)
        assert (parent / name).exists() and len(waiting()) == 1
    end = time.monotonic() + PATIENCE_S
    while (parent / name).exists() or waiting():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("count", [0, 1])
def test_without_descriptors_the_next_exec_removes_it_and_nothing_is_left(parent: Path, count: int) -> None:
    execs = ExecCgroups()
    name = execs.make(str(parent))
    assert name is not None
    with living_in(parent / name):
        free = lowest_free()
        with descriptors(count):
            execs.end(str(parent), name)
        assert (parent / name).exists() and not waiting() and lowest_free() == free
    after = execs.make(str(parent))
    assert after is not None and [one.name for one in parent.glob("exec-*")] == [after]
