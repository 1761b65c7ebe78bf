"""pyrun is killed at each step of a create: what is removed then is what it made, and not what has its name by now."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyrun.executor import run_plan
from pyrun.plan.model.steps import PARENT, Await, Mkdirat, SaveCgroup
from pyrun.runtime.delete import delete
from pyrun.runtime.prepare import Prepared
from pyrun.runtime.store import Store
from tests.support.container.bundle import BundleMaker
from tests.support.container.runner import wait_for
from tests.support.executor.faults import describe, prepare, steps_of

pytestmark = pytest.mark.root
Planned = tuple[Store, Prepared, Path]


@pytest.fixture
def planned(bundle: BundleMaker, tmp_path: Path) -> Iterator[Planned]:
    """A create, and its cgroup."""
    made = bundle(["sleep", "1000"], linux={"cgroupsPath": "/above/below"})
    (tmp_path / "state").mkdir(mode=0o700)
    store, prepared = prepare(tmp_path / "state", "k2", made.path)
    cgroup = Path(prepared.request.cgroup or "")
    assert cgroup.parts[-2:] == ("above", "below")
    yield store, prepared, cgroup
    remove(cgroup)
    cgroup.parent.rmdir()


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "1000"])
    yield process
    process.kill()
    process.wait()


def killed_at(prepared: Prepared, index: int) -> None:
    """A create that is killed before this step."""
    pid = os.fork()
    if pid == 0:
        try:
            run_plan(prepared.plan, fault={"kill_step": index})
        finally:
            os._exit(3)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, describe(prepared, index)


def is_empty(cgroup: Path) -> bool:
    return not cgroup.exists() or "populated 0" in (cgroup / "cgroup.events").read_text()


def remove(cgroup: Path) -> None:
    if cgroup.exists():
        wait_for(lambda: is_empty(cgroup), 30, "what the create had begun")
        cgroup.rmdir()


def indices(prepared: Prepared, last: type) -> list[int]:
    """Of the parent's steps, from before the first that has to do with its own cgroup to the last of this kind."""
    steps = steps_of(prepared, PARENT)
    first = next(i for i, step in steps if isinstance(step, SaveCgroup))
    return list(range(first - 1, max(i for i, step in steps if isinstance(step, last)) + 1))


def test_another_that_has_its_cgroups_name_by_now_lives_on(planned: Planned, stranger: subprocess.Popen[bytes]) -> None:
    store, prepared, cgroup = planned
    for index in indices(prepared, Await):
        where = describe(prepared, index)
        killed_at(prepared, index)
        remove(cgroup)
        cgroup.mkdir(parents=True)
        (cgroup / "cgroup.procs").write_text(str(stranger.pid))
        delete(store, "k2", print, force=True)
        assert store.ids() == [], where
        assert stranger.poll() is None and cgroup.exists(), where
        (cgroup.parent.parent / "cgroup.procs").write_text(str(stranger.pid))
        cgroup.rmdir()


def test_who_was_in_it_before_lives_on(planned: Planned, stranger: subprocess.Popen[bytes]) -> None:
    """A create that would have been refused, had it not been killed before."""
    store, prepared, cgroup = planned
    cgroup.mkdir(parents=True)
    (cgroup / "cgroup.procs").write_text(str(stranger.pid))
    for index in indices(prepared, SaveCgroup)[:-1]:
        killed_at(prepared, index)
        delete(store, "k2", print, force=True)
        assert store.ids() == [] and stranger.poll() is None and cgroup.exists(), describe(prepared, index)
    (cgroup.parent.parent / "cgroup.procs").write_text(str(stranger.pid))


@pytest.mark.parametrize("force", [False, True])
def test_an_empty_one_goes_if_it_was_made_or_taken(planned: Planned, force: bool) -> None:
    """And stays where it was there before, and the create had not come to use it. A plain delete does the same."""
    store, prepared, cgroup = planned
    made, taken = (i for i, step in steps_of(prepared, PARENT) if isinstance(step, SaveCgroup))
    assert isinstance(prepared.plan.steps[made + 1], Mkdirat)
    for index in indices(prepared, Await):
        for before in (False, True):
            where = f"{describe(prepared, index)}, there before: {before}"
            remove(cgroup)
            if before:
                cgroup.mkdir(parents=True)
            killed_at(prepared, index)
            if not force:  # which takes what has not quite ended for another's
                wait_for(lambda: store.open("k2").status() == "stopped" and is_empty(cgroup), 30, where)
            delete(store, "k2", print, force=force)
            assert store.ids() == [], where
            assert cgroup.exists() == (before and index <= taken), where
