"""Engines as their users have them: Debian's packages, configured as docs/ says, in the guest. One image for all."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.leaks import collect_traces, find_leaks
from tests.vm.engines.engine import make_image

HERE = Path(__file__).parent
GRACE_S = 20.0  # an engine cleans up behind its client's back
# What stays for the next container: slices, podman's own mount of its store, containerd's and docker's services.
KEPT = (
    "/k8s.io",
    "/cgroup/default",
    "machine.slice",
    "user.slice",
    "(udev-worker)",
    "/containers/storage/overlay ext4",
    ".service",
    " dockerd",
    " containerd",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives the tests of this directory a guest of their own."""
    for item in items:
        if HERE in item.path.parents and item.get_closest_marker("vm") is None:
            item.add_marker(pytest.mark.vm("engines"))


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory, busybox_rootfs: Path) -> Path:
    return make_image(busybox_rootfs, tmp_path_factory.mktemp("image") / "busybox.tar")


@pytest.fixture(autouse=True)
def leak_check() -> Iterator[None]:
    """Fails a test that leaves a mount, a cgroup or a process of a container's, given time to clean up."""
    before = collect_traces()
    yield
    deadline = time.monotonic() + GRACE_S
    while leaks := [leak for leak in find_leaks(before, 0) if not leak.endswith(KEPT)]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    assert not leaks, "left behind:\n" + "\n".join(leaks)
