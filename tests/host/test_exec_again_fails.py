"""Kept plans of exec where something fails, where nothing can be kept, and what is left of them."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyrun.plan.lifecycle import EXEC_NOTES, KEPT_EXECS
from tests.support.container.again import Again, cgroup_of, pid_of
from tests.support.container.bundle import BundleMaker
from tests.support.container.record import sealed
from tests.support.container.runner import Result, wait_for
from tests.support.executor.stub import TO_PYTHON

IDLE = ["sleep", "1000"]


@pytest.fixture
def one(tmp_path: Path, bundle: BundleMaker) -> Iterator[Again]:
    made = Again(tmp_path, f"again{os.getpid()}")
    made.python.create_started(bundle(IDLE), id=made.id)
    yield made
    made.python.delete_all()


# ---- what fails


def both(one: Again, *words: Any, options: Any = ()) -> Result:
    """What the launcher's user is told, which is what Python's would be."""
    ways = [one.exec(runner, *words, options=options) for runner in (one.launcher, one.python)]
    assert (ways[0].rc, ways[0].out, ways[0].err) == (ways[1].rc, ways[1].out, ways[1].err)
    return ways[0]


def test_a_failure_is_python_s_to_tell(one: Again, bundle: BundleMaker) -> None:
    rootfs = Path(json.loads((one.directory / "config.json").read_text())["root"]["path"])
    assert rootfs.name == "rootfs"
    program = Path(f"/proc/{pid_of(one)}/root/bin/mine")
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    below = Path(f"/proc/{pid_of(one)}/root/below")
    below.mkdir()
    for command, options in ((["/bin/mine"], ()), (["mine"], ()), (["true"], ["--cwd", "/below"])):
        one.warm(*command, options=options)
        one.exec(one.bare, *command, options=options).ok()
    program.chmod(0o644)
    both(one, "/bin/mine").fails(255, "permission denied")
    program.unlink()
    below.rmdir()
    assert one.exec(one.bare, "/bin/mine").rc == TO_PYTHON
    both(one, "/bin/mine").fails(255, "no such file or directory")
    both(one, "mine").fails(255, "executable file not found in $PATH")
    both(one, "true", options=["--cwd", "/below"]).fails(255, "no such file or directory")


@pytest.mark.parametrize("options", [(), ("--detach",)], ids=["foreground", "detached"])
def test_what_fails_is_planned_anew(one: Again, options: tuple[str, ...]) -> None:
    """A container that moves in the middle may make Python's plan another, whose steps have other numbers."""
    one.warm("true", options=options, quiet=True)
    entry = one.entries()[0]
    entry.write_bytes(
        entry.read_bytes().replace(b"sys/fs/cgroup/" + one.id.encode(), b"sys/fs/cgroup/" + b"x" * len(one.id))
    )
    one.exec(one.launcher, "true", options=options).ok()
    failed = one.exec(one.bare, "true", options=options)
    assert (failed.rc, failed.out) == (TO_PYTHON, "\n")


def test_a_pid_file_that_can_t_be_written(one: Again) -> None:
    (one.tmp_path / "a").mkdir()
    one.warm("sleep", "999", options=["-d", "--pid-file", one.tmp_path / "a" / "pid"], quiet=True)
    own = cgroup_of(one) / "cgroup.procs"
    before = own.read_text()
    options = ["-d", "--pid-file", one.tmp_path / "b" / "pid"]
    both(one, "sleep", "999", options=options).fails(1, "no such file or directory")
    (one.tmp_path / "a" / "pid").unlink()
    assert own.read_text() == before


# ---- where nothing can be kept, and what is left


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system with little room, where the state is."""
    (tmp_path / "again").mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "small", tmp_path / "again"], check=True)
    yield tmp_path / "again"
    subprocess.run(["umount", tmp_path / "again"], check=True)


@pytest.mark.parametrize("way", ["full", "read-only"])
def test_where_nothing_can_be_written_it_works_too(small: Path, tmp_path: Path, bundle: BundleMaker, way: str) -> None:
    one = Again(tmp_path, "full")
    one.python.create_started(bundle(IDLE), id=one.id)
    try:
        if way == "full":
            with open(small / ".filler", "wb", buffering=0) as filler, pytest.raises(OSError):
                while True:
                    filler.write(bytes(4096))
        else:
            subprocess.run(["mount", "-o", "remount,ro", small], check=True)
        for _ in range(4):
            assert one.exec(one.launcher, "echo", "in").ok().out == "in\n"
        assert not one.entries()
    finally:
        subprocess.run(["mount", "-o", "remount,rw", small], check=True)
        one.python.delete_all()


def test_a_container_of_an_older_version(one: Again) -> None:
    """Whose delete does not know of these files: so there are none."""
    path = one.directory / "record"
    record = path.read_bytes()
    for name in (EXEC_NOTES, *KEPT_EXECS):
        record = record.replace(f"/{name}\0".encode(), f"/gone{name[4:]}\0".encode())
    path.write_bytes(sealed(record))
    for _ in range(3):
        one.exec(one.launcher, "true").ok()
    assert not one.entries() and not (one.directory / EXEC_NOTES).exists()
    assert one.exec(one.bare, "true").rc == TO_PYTHON
    one.bare.delete(one.id, "--force").ok()


def test_delete_takes_all_of_it_away(one: Again, bundle: BundleMaker) -> None:
    for number in range(3):
        one.warm("true", str(number))
    one.exec(one.python, "true", "noted").ok()
    assert len(one.entries()) == 3 and (one.directory / EXEC_NOTES).exists()
    one.bare.delete(one.id, "--force").ok()
    assert one.python.ids() == []
    one.python.create_started(bundle(IDLE), id=one.id)
    one.warm("true")
    one.python.delete(one.id, "--force").ok()
    assert one.python.ids() == []


def test_run_in_the_foreground_takes_all_of_it_away(one: Again, bundle: BundleMaker) -> None:
    made = bundle(["sh", "-c", "while [ ! -e /tmp/end ]; do sleep 0.02; done"])
    process = one.launcher.popen("run", "--bundle", made.path, "front")
    wait_for(lambda: one.python("state", "front").rc == 0, 10, "the container")
    front = copy.copy(one)
    front.id = "front"
    front.warm("true")
    front.exec(front.bare, "true").ok()
    front.exec(front.python, "touch", "/tmp/end").ok()
    assert process.wait(10) == 0
    assert one.python.ids() == [one.id]


def test_a_delete_in_the_middle_of_execs_leaves_nothing(one: Again, bundle: BundleMaker) -> None:
    """Whoever is about to keep a plan sees that the container is gone."""
    null: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    for number in range(8):
        if number:
            one.python.create_started(bundle(IDLE), id=one.id)
        one.exec(one.python, "true").ok()
        running = [subprocess.Popen(one.launcher.command("exec", one.id, "true"), **null) for _ in range(6)]
        time.sleep(0.01 * number)
        one.launcher.delete(one.id, "--force").ok()
        for process in running:
            process.wait(30)
        assert one.python.ids() == []


def test_many_at_once(one: Again) -> None:
    one.warm("sh", "-c", "exit 5")
    command = one.bare.command("exec", one.id, "sh", "-c", "exit 5")
    many = [subprocess.Popen(command, stdin=subprocess.DEVNULL) for _ in range(30)]
    assert {process.wait(60) for process in many} == {5}
