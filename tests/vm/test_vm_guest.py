"""The guest itself: what the other tests of this directory take for granted."""

from __future__ import annotations

from pathlib import Path

from tests.support.container.bundle import BundleMaker
from tests.support.container.runner import Runner

CONTROLLERS = {"cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc"}


def test_controllers() -> None:
    assert set(Path("/sys/fs/cgroup/cgroup.controllers").read_text().split()) >= CONTROLLERS


def test_pyrun_is_the_installed_one(pyrun: Runner) -> None:
    assert pyrun.argv == ["/usr/local/bin/pyrun"]
    assert Path("/usr/local/bin/pyrun").resolve() == Path("/usr/local/lib/pyrun/pyrun/bin/pyrun")
    assert pyrun("--version").ok().out.startswith("pyrun version")


def test_run(pyrun: Runner, bundle: BundleMaker) -> None:
    assert pyrun.run(bundle(["echo", "hello"])).ok().out == "hello\n"
