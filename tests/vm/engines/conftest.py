"""Engines as their users have them: Debian's packages, configured as docs/ says, in the guest. One image for all."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.container.leaks import collect_traces, find_leaks
from tests.vm.engines.engine import (
    IMAGE,
    Client,
    add_subordinate_ids,
    config_file,
    config_of,
    make_image,
    restart,
    systemctl,
)

HERE = Path(__file__).parent
PODMAN_CONF = "/etc/containers/containers.conf.d/pyrun.conf"
DOCKER_CONF = "/etc/docker/daemon.json"
EACH_S = {"containerd": 22, "podman": 33, "docker": 49}  # about what a test takes
GRACE_S = 20.0  # an engine cleans up behind its client's back
# What stays for the next container: slices, podman's own mount of its store, docker's of the host's network, the
# services of containerd and docker.
KEPT = (
    "/k8s.io",
    "/cgroup/default",
    "machine.slice",
    "user.slice",
    "(udev-worker)",
    "/containers/storage/overlay ext4",
    "/run/docker/netns/default nsfs",
    ".service",
    " dockerd",
    " containerd",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives the tests of each engine a guest of their own. The registry is docker's and podman's."""
    for item in items:
        if HERE in item.path.parents and item.get_closest_marker("vm") is None:
            _, engine, *_ = item.path.stem.split("_")
            group = {"podman": "podman", "docker": "docker", "registry": "docker"}.get(engine, "containerd")
            item.add_marker(pytest.mark.vm(group, each=EACH_S[group]))


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory, busybox_rootfs: Path) -> Path:
    return make_image(busybox_rootfs, tmp_path_factory.mktemp("image") / "busybox.tar")


@pytest.fixture(scope="module")
def podman(image: Path) -> Iterator[Client]:
    """podman as docs/podman.md configures it, with the image."""
    client = Client("podman")
    add_subordinate_ids("containers", 2000000, 1000000)  # for --userns=auto
    with config_file(PODMAN_CONF, config_of("podman.md", PODMAN_CONF)):
        if client("image", "exists", IMAGE).rc:
            client("load", "-q", "-i", str(image)).ok()
            client("run", "--rm", "--network", "none", IMAGE, "true").ok()
        yield client
        client("rm", "-fa", "-t", "0")
        client("volume", "rm", "-fa")


@pytest.fixture(scope="module")
def docker(image: Path) -> Iterator[Client]:
    """docker as docs/docker.md configures it, with the image and both runtimes."""
    client = Client("docker")
    with config_file(DOCKER_CONF, config_of("docker.md", DOCKER_CONF)):
        restart("docker")
        if client("image", "inspect", IMAGE).rc:
            client("load", "-q", "-i", str(image)).ok()
        yield client
        left = client("ps", "-aq").out.split()
        if left:
            client("rm", "-f", *left)
        systemctl("stop", "docker.socket", "docker", "containerd")


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
