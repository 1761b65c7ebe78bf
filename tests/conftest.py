"""Fixtures that every tier shares: root file systems, bundles, and the runtime with a state directory of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import tally
from tests.support.container.bundle import BundleMaker
from tests.support.container.runner import REPO, Runner
from tests.support.vm import host as vm_host


def pytest_addoption(parser: pytest.Parser) -> None:
    vm_host.add_option(parser)


def pytest_configure(config: pytest.Config) -> None:
    vm_host.install(config)
    tally.install(config)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips tests marked `root` where they can't run, with what would make them run."""
    if item.get_closest_marker("root") is None:
        return
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if "PYRUN_VIEW" not in os.environ:
        pytest.skip("needs a pure cgroup v2: run pytest through tests/view")


def make_rootfs(kind: str) -> Path:
    """The cached root file system of this kind, made now if need be."""
    done = subprocess.run([REPO / "bundles" / "make-rootfs", kind], check=True, stdout=subprocess.PIPE, text=True)
    return Path(done.stdout.strip())


@pytest.fixture(scope="session")
def busybox_rootfs() -> Path:
    """A busybox root file system. Shared: never write to it; bundles get copies."""
    return make_rootfs("busybox")


@pytest.fixture(scope="session")
def debian_rootfs() -> Path:
    """Debian's essential packages. Shared, as above."""
    return make_rootfs("debian")


@pytest.fixture
def bundle(tmp_path: Path, busybox_rootfs: Path) -> BundleMaker:
    """Makes bundles: bundle(["id"], process={"cwd": "/tmp"}), each with its own copy of the busybox root."""
    return BundleMaker(tmp_path, busybox_rootfs)


@pytest.fixture
def pyrun(tmp_path: Path) -> Iterator[Runner]:
    """The runtime under test. What the test leaves is deleted by force, and no state directory may stay."""
    runner = Runner(tmp_path / "state")
    yield runner
    runner.delete_all()
