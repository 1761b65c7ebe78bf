"""dockerd's own options with pyrun: the default runtime, builds, live-restore, user namespaces, cgroup drivers."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.vm.engines.engine import IMAGE, Client, config_file, config_of, pids_named, restart, systemctl, wait_until

CONF = "/etc/docker/daemon.json"
AS_DEFAULT = config_of("docker.md", CONF, 1)


@contextmanager
def dockerd(docker: Client, **more: object) -> Iterator[None]:
    """pyrun as the default runtime, and these options. The next test restarts it with its own."""
    with config_file(CONF, json.dumps({**json.loads(AS_DEFAULT), **more})):
        restart("docker")
        yield


def test_default_runtime_after_a_reload(docker: Client) -> None:
    """What is on the page takes effect without a restart, for new containers. First: it has the fixture's dockerd."""
    docker("create", "--name", "before", IMAGE).ok()
    with config_file(CONF, AS_DEFAULT):
        systemctl("reload", "docker")
        wait_until(lambda: docker.says("info", "--format", "{{.DefaultRuntime}}") == "pyrun", "the reload")
        docker("create", "--name", "after", IMAGE).ok()
        runtimes = docker.says("inspect", "--format", "{{.HostConfig.Runtime}}", "before", "after").split()
        assert runtimes == ["runc", "pyrun"]
        docker("rm", "before", "after").ok()
    restart("docker")  # a reload leaves a cgroup in its service


def test_build_with_run_steps(docker: Client, tmp_path: Path) -> None:
    """By dockerd's own builder: BuildKit, which newer clients prefer, has its steps run by runc."""
    with dockerd(docker):
        (tmp_path / "file").write_text("context\n")
        (tmp_path / "Dockerfile").write_text(
            f"FROM {IMAGE}\nRUN id -u >/built\nCOPY file /file\nUSER 1000\nRUN id -u >/tmp/built\n"
        )
        build = Client("env", "DOCKER_BUILDKIT=0", *docker.argv, "build", "--network", "none")
        build("-q", "-t", "built", str(tmp_path)).ok()
        told = docker.says("run", "--rm", "--network", "none", "built", "cat", "/built", "/tmp/built", "/file")
        assert told.split() == ["0", "1000", "context"]
        (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN no-such-program\n")
        failed = build(str(tmp_path)).fails(127)
        assert "returned a non-zero code: 127" in failed.err
        docker("rmi", "built").ok()


def test_live_restore(docker: Client) -> None:
    """A container outlives dockerd, killed or restarted, with its output and its exit."""
    with dockerd(docker):
        script = 'trap "exit 5" TERM; i=0; while :; do echo $i; i=$((i + 1)); sleep 0.5; done'
        docker("run", "-d", "--name", "last", "--network", "none", IMAGE, "sh", "-c", script).ok()
        pid = ("inspect", "--format", "{{.State.Pid}}", "last")
        try:
            before = docker.says(*pid)
            restart("docker")
            assert docker.says(*pid) == before
            (dockerd_pid,) = pids_named("dockerd")
            os.kill(dockerd_pid, signal.SIGKILL)
            wait_until(lambda: pids_named("dockerd") not in ([], [dockerd_pid]), "systemd to start dockerd again")
            wait_until(lambda: docker("inspect", "--format", "{{.State.Pid}}", "last").out.strip() == before, "dockerd")
            assert docker.says("exec", "last", "echo", "on") == "on"
            numbers = [int(line) for line in docker.says("logs", "last").split()]
            assert numbers == list(range(len(numbers))), numbers
            docker("stop", "-t", "20", "last").ok()
            assert docker.says("inspect", "--format", "{{.State.ExitCode}}", "last") == "5"
        finally:
            docker("rm", "-f", "last").ok()


def test_userns_remap(docker: Client, image: Path) -> None:
    with dockerd(docker, **{"userns-remap": "user"}):
        docker("load", "-q", "-i", str(image)).ok()
        script = "cat /proc/self/uid_map; touch /mine; stat -c %u /mine; cat /sys/fs/cgroup/memory.max"
        run = ("run", "--rm", "--network", "none")
        told = docker.says(*run, "--memory", "64m", IMAGE, "sh", "-c", script).split()
        assert told[0] == "0" and int(told[1]) >= 100000 and told[-2:] == ["0", str(64 << 20)], told
        as_host = docker.says(*run, "--userns=host", IMAGE, "cat", "/proc/self/uid_map").split()
        assert as_host == ["0", "0", "4294967295"]


def test_cgroup_drivers(docker: Client) -> None:
    """exec-opts native.cgroupdriver: systemd's scopes, or cgroups that dockerd names."""
    limits = ("--memory", "64m", "--pids-limit", "33", "--cgroupns=host")
    script = "cat /proc/self/cgroup; cd /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup); cat memory.max pids.max"
    for driver, parent, wanted in (
        ("systemd", "user.slice", "0::/user.slice/docker-"),
        ("cgroupfs", "/test", "0::/test/"),
    ):
        with dockerd(docker, **{"exec-opts": [f"native.cgroupdriver={driver}"]}):
            assert docker.says("info", "--format", "{{.CgroupDriver}}") == driver
            run = ("run", "--rm", "--network", "none", *limits, "--cgroup-parent", parent)
            told = docker.says(*run, IMAGE, "sh", "-c", script).split()
            assert told[0].startswith(wanted) and told[1:] == [str(64 << 20), "33"]
    os.rmdir("/sys/fs/cgroup/test")
