"""docker runs containers on pyrun beside runc, with `--runtime pyrun`; configured as docs/docker.md says."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.vm.engines.engine import IMAGE, Client, everything, pids_named, wait_until

RUN = ("run", "--runtime", "pyrun", "--network", "none")
UNTIL_TERM = 'trap "exit 5" TERM; trap "exit 6" USR1; echo started; while :; do sleep 0.2; done'


@pytest.fixture
def sleeper(docker: Client) -> Iterator[str]:
    """A container that sleeps."""
    docker(*RUN, "-d", "--name", "sleeper", "--memory", "64m", IMAGE).ok()
    yield "sleeper"
    docker("rm", "-f", "sleeper").ok()


def test_run_and_how_it_ends(docker: Client) -> None:
    result = docker(*RUN, "--rm", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (result.rc, result.out, result.err) == (7, "out\n", "err\n")
    result = docker(*RUN, "--rm", IMAGE, "no-such-program")
    assert result.rc == 127 and '"no-such-program": executable file not found in $PATH' in result.err
    assert docker(*RUN, "--rm", IMAGE, "/etc").rc == 126
    onto_a_file = docker(*RUN, "--rm", "-v", "/etc:/bin/busybox", IMAGE, "true")
    assert onto_a_file.rc == 125 and "Are you trying to mount a directory onto a file" in onto_a_file.err
    terminal = docker.terminal(*RUN, "--rm", "-it", IMAGE, "sh", "-c", "tty; exit 3")
    assert terminal.rc == 3 and "/dev/pts/0" in terminal.out, terminal.describe()
    assert docker(*RUN, "--rm", "-i", IMAGE, "cat", input="in put").ok().out == "in put"


def test_exec(docker: Client, sleeper: str) -> None:
    assert docker("exec", "-i", sleeper, "cat", input="in put").ok().out == "in put"
    assert docker("exec", sleeper, "sh", "-c", "exit 9").rc == 9
    missing = docker("exec", sleeper, "no-such-program")
    assert missing.rc == 126 and '"no-such-program": executable file not found in $PATH' in missing.out
    script = "id -u; id -g; pwd; echo $A"
    told = docker.says("exec", "-u", "1000:5", "-w", "/tmp", "-e", "A=b", sleeper, "sh", "-c", script)
    assert told.split() == ["1000", "5", "/tmp", "b"]
    assert everything(docker) in docker.says("exec", "--privileged", sleeper, "grep", "CapEff", "/proc/self/status")
    assert "/dev/pts/" in docker.terminal("exec", "-it", sleeper, "tty").ok().out
    docker("exec", "-d", sleeper, "touch", "/made").ok()
    wait_until(lambda: docker("exec", sleeper, "test", "-e", "/made").rc == 0, "the detached process")


def test_stop_kill_restart_pause_wait_rename_and_logs(docker: Client) -> None:
    state = ("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "life")
    docker(*RUN, "-d", "--name", "born", "--stop-signal", "USR1", IMAGE, "sh", "-c", UNTIL_TERM).ok()
    docker("rename", "born", "life").ok()
    try:
        wait_until(lambda: docker.says("logs", "life") == "started", "its traps")
        docker("restart", "-t", "20", "life").ok()
        docker("pause", "life").ok()
        assert docker.says(*state) == "paused 0"
        assert "is paused" in docker("exec", "life", "true").fails().err
        docker("unpause", "life").ok()
        docker("kill", "-s", "TERM", "life").ok()
        assert docker.says("wait", "life") == "5"
        docker("start", "life").ok()
        wait_until(lambda: docker.says("logs", "life").split() == ["started"] * 3, "its traps")
        docker("stop", "-t", "20", "life").ok()
        assert docker.says(*state) == "exited 6"
    finally:
        docker("rm", "-f", "life").ok()


def test_stats_top_update_and_healthcheck(docker: Client) -> None:
    health = ("--health-cmd", "test -e /healthy", "--health-interval", "1s", "--health-retries", "1")
    docker(*RUN, "-d", "--name", "watched", *health, IMAGE).ok()
    state = ("inspect", "--format", "{{.State.Health.Status}}", "watched")
    try:
        (stats,) = map(
            json.loads, docker.says("stats", "--no-stream", "--format", "{{json .}}", "watched").splitlines()
        )
        assert int(stats["PIDs"]) >= 1 and not stats["MemUsage"].startswith("0B"), stats
        limits = "--cpus 0.3 --memory 70m --memory-swap 100m --memory-reservation 20m --pids-limit 44 --cpuset-cpus 1"
        docker("update", *limits.split(), "watched").ok()
        files = "cpu.max memory.max memory.swap.max memory.low pids.max cpuset.cpus".split()
        mib = 1 << 20
        now = docker.says("exec", "watched", "cat", *(f"/sys/fs/cgroup/{file}" for file in files)).split()
        assert now == ["30000", "100000", *map(str, (70 * mib, 30 * mib, 20 * mib, 44, 1))]
        assert docker.says("top", "watched", "-o", "pid,comm").split()[3::2] == ["sleep"]
        wait_until(lambda: docker.says(*state) == "unhealthy", "the health check to fail")
        docker("exec", "watched", "touch", "/healthy").ok()
        wait_until(lambda: docker.says(*state) == "healthy", "the health check to pass")
    finally:
        docker("rm", "-f", "watched").ok()


def test_restart_policy(docker: Client) -> None:
    docker(*RUN, "-d", "--name", "tries", "--restart", "on-failure:2", IMAGE, "sh", "-c", "echo try; exit 3").ok()
    wait_until(lambda: docker.says("logs", "tries").split() == ["try"] * 3, "two restarts")
    wait_until(lambda: docker.says("inspect", "--format", "{{.State.Status}}", "tries") == "exited", "the last end")
    docker("rm", "-f", "tries").ok()


def test_cp_commit_export_and_diff(docker: Client, sleeper: str, tmp_path: Path) -> None:
    """cp into a running and a stopped container; what is committed has both files."""
    (tmp_path / "file").write_text("copied\n")
    docker("cp", str(tmp_path / "file"), f"{sleeper}:/one").ok()
    assert docker.says("exec", sleeper, "cat", "/one") == "copied"
    docker("exec", sleeper, "sh", "-c", "echo back >/two").ok()
    docker("stop", "-t", "0", sleeper).ok()
    docker("cp", f"{sleeper}:/two", str(tmp_path / "two")).ok()
    assert (tmp_path / "two").read_text() == "back\n"
    docker("cp", str(tmp_path / "file"), f"{sleeper}:/three").ok()
    assert {"A /one", "A /two", "A /three"} <= set(docker.says("diff", sleeper).splitlines())
    docker("export", "-o", str(tmp_path / "all.tar"), sleeper).ok()
    docker("commit", sleeper, "committed").ok()
    told = docker.says(*RUN, "--rm", "committed", "cat", "/one", "/two", "/three")
    assert told.split() == ["copied", "back", "copied"]
    docker("rmi", "committed").ok()


def test_ports_and_shared_namespaces(docker: Client) -> None:
    """docker's bridge and a published port; another container in its network, IPC and PID namespaces."""
    serve = ("sh", "-c", "mkdir /w; echo served >/w/i; exec httpd -f -p 80 -h /w")
    run = ("run", "--runtime", "pyrun", "-d", "--name", "server", "-p", "127.0.0.1:8090:80", "--ipc", "shareable")
    docker(*run, IMAGE, *serve).ok()
    try:
        wait_until(lambda: docker("exec", "server", "test", "-e", "/w/i").rc == 0, "the server")
        assert urlopen("http://127.0.0.1:8090/i", timeout=20).read() == b"served\n"
        joins = [f"--{kind}=container:server" for kind in ("network", "ipc", "pid")]
        where = "cd /proc/self/ns; readlink ipc; readlink net; readlink pid"
        script = "wget -q -O - 127.0.0.1/i; cat /proc/1/comm; " + where
        served, init, *namespaces = docker.says(
            "run", "--runtime", "pyrun", "--rm", *joins, IMAGE, "sh", "-c", script
        ).split()
        assert (served, init) == ("served", "httpd")
        assert docker.says("exec", "server", "sh", "-c", where).split() == namespaces
    finally:
        docker("rm", "-f", "server").ok()


def test_the_shim_is_killed(docker: Client, sleeper: str) -> None:
    id = docker.says("inspect", "--format", "{{.Id}}", sleeper)
    (shim,) = pids_named("containerd-shim-runc-v2", id)
    os.kill(shim, signal.SIGKILL)
    running = ("inspect", "--format", "{{.State.Running}}", sleeper)
    wait_until(lambda: docker.says(*running) == "false", "docker to notice")
    assert docker.says(*RUN, "--rm", IMAGE, "echo", "on") == "on"
