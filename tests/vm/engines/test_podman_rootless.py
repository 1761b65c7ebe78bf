"""podman without root on pyrun: a user with a user manager, as after a log-in."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.engines.engine import IMAGE, ISOLATED, Client, pids_named, systemctl


@pytest.fixture(scope="module")
def rootless(podman: Client, image: Path) -> Iterator[Client]:
    systemctl("start", "user@1000.service")
    words = "runuser -u user -- env -C /home/user HOME=/home/user XDG_RUNTIME_DIR=/run/user/1000 podman"
    client = Client(*words.split())
    copy = Path("/var/tmp/busybox.tar")
    copy.write_bytes(image.read_bytes())
    try:
        client("load", "-q", "-i", str(copy)).ok()
        yield client
        client("system", "reset", "-f")
    finally:
        copy.unlink()
        for pid in pids_named("catatonit"):
            os.kill(pid, signal.SIGKILL)
        systemctl("stop", "user@1000.service", "user-1000.slice")


def test_limits_with_systemd(rootless: Client) -> None:
    """And with the groups that the user has: the first 0 is user's own, as the container sees it."""
    limits = ("--memory", "64m", "--pids-limit", "30")
    script = (
        "sed -n s/Groups://p /proc/self/status; id -u; cat /proc/self/uid_map; "
        "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max"
    )
    told = rootless("run", "--rm", *ISOLATED, *limits, "--group-add=keep-groups", IMAGE, "sh", "-c", script).ok()
    words = told.out.split()
    assert words[:5] == ["0", "0", "0", "1000", "1"] and words[-2:] == [str(64 << 20), "30"], told.describe()


def test_a_life(rootless: Client) -> None:
    rootless("run", "-d", "--name", "mine", *ISOLATED, IMAGE).ok()
    assert rootless.says("exec", "mine", "id", "-u") == "0"
    assert "/dev/pts/" in rootless.terminal("exec", "-it", "mine", "tty").ok().out
    rootless("pause", "mine").ok()
    rootless("unpause", "mine").ok()
    rootless("update", "--memory", "70m", "mine").ok()
    assert rootless.says("exec", "mine", "cat", "/sys/fs/cgroup/memory.max") == str(70 << 20)
    rootless("restart", "-t", "0", "mine").ok()
    rootless("rm", "-f", "-t", "0", "mine").ok()


def test_userns_keep_id_and_nomap(rootless: Client) -> None:
    assert rootless.says("run", "--rm", *ISOLATED, "--userns=keep-id", IMAGE, "id", "-u") == "1000"
    told = rootless.says("run", "--rm", *ISOLATED, "--userns=nomap", IMAGE, "cat", "/proc/self/uid_map")
    assert told.split() == ["0", "1", "65536"]


def test_cgroupfs_manager(rootless: Client) -> None:
    """Without systemd a user has no cgroup to make; containers run in podman's, without limits."""
    told = rootless("--cgroup-manager=cgroupfs", "run", "--rm", *ISOLATED, IMAGE, "id", "-u").ok()
    assert told.out == "0\n"


def test_a_pod_and_a_build(rootless: Client) -> None:
    infra = ("--infra-image", IMAGE, "--infra-command", "sleep 1000")
    rootless("pod", "create", "--name", "pod", *ISOLATED, *infra).ok()
    script = "readlink /proc/self/ns/net"
    try:
        first, second = (rootless.says("run", "--rm", "--pod", "pod", IMAGE, "sh", "-c", script) for _ in "12")
        assert first == second
    finally:
        rootless("pod", "rm", "-f", "-t", "0", "pod").ok()
    build = ("build", "-q", "--network", "none", "--runtime", "/usr/local/bin/pyrun", "-t", "built", "-")
    rootless(*build, input=f"FROM {IMAGE}\nRUN id -u >/built\n").ok()
    assert rootless.says("run", "--rm", *ISOLATED, "built", "cat", "/built") == "0"
