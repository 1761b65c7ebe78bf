"""docker runs its containers on pyrun, beside runc and as the default; configured as docs/docker.md says."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.engines.engine import (
    IMAGE,
    REPORT,
    Client,
    config_file,
    config_of,
    options,
    pids_named,
    report_of,
    systemctl,
    wait_until,
    wrong_options,
)

CONF = "/etc/docker/daemon.json"
RUN = ("run", "--runtime", "pyrun", "--network", "none")


@pytest.fixture(scope="module")
def docker(image: Path) -> Iterator[Client]:
    client = Client("docker")
    with config_file(CONF, config_of("docker.md", CONF)):
        systemctl("start", "docker")
        client("load", "-q", "-i", str(image)).ok()
        client(*RUN, "--rm", IMAGE, "true").ok()
        yield client
        left = client("ps", "-aq").out.split()
        if left:
            client("rm", "-f", *left)
        systemctl("stop", "docker.socket", "docker", "containerd")


def test_run_and_how_it_ends(docker: Client) -> None:
    result = docker(*RUN, "--rm", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (result.rc, result.out, result.err) == (7, "out\n", "err\n")
    result = docker(*RUN, "--rm", IMAGE, "no-such-program")
    assert result.rc == 127 and '"no-such-program": executable file not found in $PATH' in result.err
    assert docker(*RUN, "--rm", IMAGE, "/etc").rc == 126
    terminal = docker.terminal(*RUN, "--rm", "-it", IMAGE, "sh", "-c", "tty; exit 3")
    assert terminal.rc == 3 and "/dev/pts/0" in terminal.out, terminal.describe()


def test_options(docker: Client, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "hello").write_text("there")
    docker("volume", "create", "options").ok()
    docker(*RUN, "--rm", "-v", "options:/vol", IMAGE, "chown", "1000", "/vol").ok()
    told = docker("run", "--runtime", "pyrun", "--rm", *options(tmp_path, "options"), IMAGE, "sh", "-c", REPORT)
    assert wrong_options(report_of(told)) == {}
    docker("volume", "rm", "options").ok()


def test_a_privileged_one_and_out_of_memory(docker: Client) -> None:
    script = "mkdir /m; mount -t tmpfs t /m && echo mounted; grep CapEff /proc/self/status"
    privileged = docker(*RUN, "--rm", "--privileged", IMAGE, "sh", "-c", script).ok()
    assert "mounted" in privileged.out and "0000003fffffffff" in privileged.out, privileged.describe()
    # A moment more, because containerd reads of it in the cgroup, which would be gone with an init that was killed.
    eat = ("sh", "-c", "dd if=/dev/zero of=/dev/null bs=64M; sleep 1; exit 3")
    assert docker(*RUN, "--name", "eater", "--memory", "16m", IMAGE, *eat).rc == 3
    assert docker("inspect", "--format", "{{.State.OOMKilled}}", "eater").ok().out == "true\n"
    docker("rm", "eater").ok()


def test_a_life(docker: Client) -> None:
    script = 'trap "exit 5" TERM; echo started; while :; do sleep 0.2; done'
    health = ("--health-cmd", "test -e /etc", "--health-interval", "2s")
    docker(*RUN, "-d", "--name", "life", *health, IMAGE, "sh", "-c", script).ok()
    try:
        assert docker("exec", "-i", "life", "cat", input="in put").ok().out == "in put"
        assert docker("exec", "life", "sh", "-c", "exit 9").rc == 9
        assert "/dev/pts/" in docker.terminal("exec", "-it", "life", "tty").ok().out
        (stats,) = map(
            json.loads, docker("stats", "--no-stream", "--format", "{{json .}}", "life").ok().out.splitlines()
        )
        assert int(stats["PIDs"]) >= 2 and not stats["MemUsage"].startswith("0B"), stats
        docker("update", "--cpus", "0.3", "--memory", "70m", "--memory-swap", "70m", "life").ok()
        files = "/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/memory.max"
        assert docker("exec", "life", "cat", *files).ok().out.split() == ["30000", "100000", str(70 << 20)]
        state = "{{.State.Status}} {{.State.Health.Status}}"
        wait_until(lambda: docker("inspect", "--format", state, "life").out == "running healthy\n", "the health check")
        docker("pause", "life").ok()
        assert docker("inspect", "--format", "{{.State.Status}}", "life").ok().out == "paused\n"
        docker("unpause", "life").ok()
        assert "sleep" in docker("top", "life").ok().out
        docker("restart", "-t", "20", "life").ok()
        docker("kill", "-s", "TERM", "life").ok()
        assert docker("wait", "life").ok().out == "5\n"
        assert docker("logs", "life").ok().out == "started\n" * 2
    finally:
        docker("rm", "-f", "life").ok()


def test_the_default_runtime_builds_and_lives_on(docker: Client, tmp_path: Path) -> None:
    """As the default it also runs the steps of a build. With live-restore a container outlives dockerd."""
    with config_file(CONF, config_of("docker.md", CONF, 1)):
        systemctl("reload", "docker")
        wait_until(lambda: docker("info", "--format", "{{.DefaultRuntime}}").out == "pyrun\n", "the reload")
        (tmp_path / "Dockerfile").write_text(f'FROM {IMAGE}\nRUN id -u >/built\nCMD ["cat", "/built"]\n')
        docker("build", "-q", "--network", "none", "-t", "built", str(tmp_path)).ok()
        docker("run", "-d", "--name", "last", "--network", "none", "built", "sh", "-c", "cat /built; sleep 1000").ok()
        try:
            assert docker("inspect", "--format", "{{.HostConfig.Runtime}}", "last").ok().out == "pyrun\n"
            pid = docker("inspect", "--format", "{{.State.Pid}}", "last").ok().out
            (dockerd,) = pids_named("dockerd")
            os.kill(dockerd, signal.SIGKILL)
            wait_until(lambda: pids_named("dockerd") not in ([], [dockerd]), "systemd to start dockerd again")
            wait_until(lambda: docker("inspect", "--format", "{{.State.Pid}}", "last").out == pid, "docker to find it")
            assert docker("exec", "last", "cat", "/built").ok().out == "0\n"
            assert docker("logs", "last").ok().out == "0\n"
        finally:
            docker("rm", "-f", "last").ok()
    systemctl("restart", "docker")


def test_the_shim_is_killed(docker: Client) -> None:
    docker(*RUN, "-d", "--name", "orphan", IMAGE).ok()
    try:
        id = docker("inspect", "--format", "{{.Id}}", "orphan").ok().out.strip()
        (shim,) = pids_named("containerd-shim-runc-v2", id)
        os.kill(shim, signal.SIGKILL)
        running = "{{.State.Running}}"
        wait_until(lambda: docker("inspect", "--format", running, "orphan").out == "false\n", "docker to notice")
    finally:
        docker("rm", "-f", "orphan").ok()
    assert docker(*RUN, "--rm", IMAGE, "echo", "on").ok().out == "on\n"
