"""podman, with conmon, runs its containers on pyrun; configured as docs/podman.md says."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.engines.engine import IMAGE, ISOLATED, Client, pids_named, wait_until

UNTIL_TERM = 'trap "exit 5" TERM; trap "exit 6" USR1; echo started; while :; do sleep 0.2; done'


@pytest.fixture
def sleeper(podman: Client) -> Iterator[str]:
    """A container that sleeps."""
    podman("run", "-d", "--name", "sleeper", *ISOLATED, "--memory", "64m", IMAGE).ok()
    yield "sleeper"
    podman("rm", "-f", "-t", "0", "sleeper").ok()


def test_run_and_how_it_ends(podman: Client) -> None:
    result = podman("run", "--rm", *ISOLATED, IMAGE, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (result.rc, result.out, result.err) == (7, "out\n", "err\n")
    result = podman("run", "--rm", *ISOLATED, IMAGE, "no-such-program")
    assert result.rc == 127 and '"no-such-program": executable file not found in $PATH' in result.err
    assert "from config.json" not in result.err.splitlines()[0]
    assert podman("run", "--rm", *ISOLATED, IMAGE, "/etc").rc == 126
    terminal = podman.terminal("run", "--rm", "-it", *ISOLATED, IMAGE, "sh", "-c", "tty; exit 3")
    assert terminal.rc == 3 and "/dev/pts/0" in terminal.out, terminal.describe()


def test_containers_conf_and_runtime_option(podman: Client) -> None:
    assert podman.says("info", "--format", "{{.Host.OCIRuntime.Name}} {{.Host.CgroupManager}}") == "pyrun systemd"
    for option, name in ((), "pyrun"), (("--runtime", "/usr/local/bin/pyrun"), "/usr/local/bin/pyrun"):
        podman(*option, "create", "--name", "noted", *ISOLATED, IMAGE).ok()
        assert podman.says("inspect", "--format", "{{.OCIRuntime}}", "noted") == name
        podman("start", "noted").ok()
        podman("rm", "-f", "-t", "0", "noted").ok()


def test_exec(podman: Client, sleeper: str) -> None:
    assert podman("exec", "-i", sleeper, "cat", input="in put").ok().out == "in put"
    assert podman("exec", sleeper, "sh", "-c", "exit 9").rc == 9
    assert podman("exec", sleeper, "sh", "-c", "kill -9 $$").rc == 137
    assert podman("exec", sleeper, "no-such-program").rc == 127
    assert podman("exec", sleeper, "/etc").rc == 126
    as_user = podman.says(
        "exec", "-u", "1000:5", "-w", "/tmp", "-e", "A=b", sleeper, "sh", "-c", "id -u; id -g; pwd; echo $A"
    )
    assert as_user.split() == ["1000", "5", "/tmp", "b"]
    assert "000001ffffffffff" in podman.says("exec", "--privileged", sleeper, "grep", "CapEff", "/proc/self/status")
    assert "/dev/pts/" in podman.terminal("exec", "-it", sleeper, "tty").ok().out
    podman("exec", "-d", sleeper, "touch", "/made").ok()
    wait_until(lambda: podman("exec", sleeper, "test", "-e", "/made").rc == 0, "the detached process")


def test_stop_kill_restart_pause_and_logs(podman: Client) -> None:
    state = ("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "life")
    podman("run", "-d", "--name", "life", *ISOLATED, "--stop-signal", "USR1", IMAGE, "sh", "-c", UNTIL_TERM).ok()
    try:
        podman("restart", "-t", "20", "life").ok()
        podman("pause", "life").ok()
        assert podman.says(*state) == "paused 0"
        assert podman("exec", "life", "true").rc == 255
        podman("unpause", "life").ok()
        podman("kill", "-s", "TERM", "life").ok()
        assert podman.says("wait", "life") == "5"
        podman("start", "life").ok()
        wait_until(lambda: podman.says("logs", "life") == "started\n" * 2 + "started", "its traps")
        podman("stop", "-t", "20", "life").ok()
        assert podman.says(*state) == "exited 6"
    finally:
        podman("rm", "-f", "-t", "0", "life").ok()


def test_stats_top_update_and_healthcheck(podman: Client) -> None:
    health = ("--health-cmd", "test -e /etc", "--health-interval", "disable")
    podman("run", "-d", "--name", "watched", *ISOLATED, *health, IMAGE).ok()
    try:
        podman("healthcheck", "run", "watched").ok()
        (stats,) = json.loads(podman("stats", "--no-stream", "--format", "json", "watched").ok().out)
        assert int(stats["pids"]) == 1 and stats["mem_usage"] != "0B / 0B", stats
        limits = "--cpus 0.3 --memory 70m --memory-swap 100m --memory-reservation 20m --cpuset-cpus 1"
        podman("update", *limits.split(), "watched").ok()
        files = (f"/sys/fs/cgroup/{f}" for f in "cpu.max memory.max memory.swap.max memory.low cpuset.cpus".split())
        mib = 1 << 20
        now = podman.says("exec", "watched", "cat", *files).split()
        assert now == ["30000", "100000", *map(str, (70 * mib, 30 * mib, 20 * mib, 1))]
        refused = podman("update", "--cpuset-cpus", "77", "watched")
        assert refused.rc != 0 and "cpuset" in refused.err, refused.describe()
        assert podman.says("top", "watched", "user", "comm").split() == ["USER", "COMMAND", "root", "sleep"]
    finally:
        podman("rm", "-f", "-t", "0", "watched").ok()


def test_restart_policy_and_timeout(podman: Client) -> None:
    podman(
        "run", "-d", "--name", "tries", *ISOLATED, "--restart", "on-failure:2", IMAGE, "sh", "-c", "echo try; exit 3"
    ).ok()
    wait_until(lambda: podman.says("logs", "tries").split() == ["try"] * 3, "two restarts")
    podman("rm", "-f", "-t", "0", "tries").ok()
    assert podman("run", "--rm", "--timeout", "1", *ISOLATED, IMAGE).rc == 255


def test_cp_commit_export_and_diff(podman: Client, sleeper: str, tmp_path: Path) -> None:
    """cp into a running and a stopped container; what is committed has both files."""
    (tmp_path / "file").write_text("copied\n")
    podman("cp", str(tmp_path / "file"), f"{sleeper}:/one").ok()
    assert podman.says("exec", sleeper, "cat", "/one") == "copied"
    podman("exec", sleeper, "sh", "-c", "echo back >/two").ok()
    podman("stop", "-t", "0", sleeper).ok()
    podman("cp", f"{sleeper}:/two", str(tmp_path / "two")).ok()
    assert (tmp_path / "two").read_text() == "back\n"
    podman("cp", str(tmp_path / "file"), f"{sleeper}:/three").ok()
    assert {"A /one", "A /two", "A /three"} <= set(podman.says("diff", sleeper).splitlines())
    podman("export", "-o", str(tmp_path / "all.tar"), sleeper).ok()
    podman("commit", "-q", sleeper, "committed").ok()
    assert podman.says("run", "--rm", *ISOLATED, "committed", "cat", "/one", "/two", "/three").split() == [
        "copied",
        "back",
        "copied",
    ]
    podman("rmi", "committed").ok()


def test_checkpoint_is_refused(podman: Client, sleeper: str) -> None:
    refused = podman("container", "checkpoint", sleeper)
    assert refused.rc != 0 and "checkpoint/restore" in refused.err, refused.describe()
    assert podman.says("inspect", "--format", "{{.State.Status}}", sleeper) == "running"


def test_build_with_run_steps(podman: Client, tmp_path: Path) -> None:
    """Each step is a container of pyrun's, which a failing one shows."""
    steps = f"""FROM {IMAGE}
RUN id -u >/built; grep NoNewPrivs /proc/self/status >>/built
USER 1000
WORKDIR /tmp
RUN --mount=type=tmpfs,target=/t --mount=type=bind,source=.,target=/src ls /src >made; touch made; id -u >>made
"""
    (tmp_path / "Containerfile").write_text(steps)
    build = ("build", "-q", "--network", "none", "--runtime", "/usr/local/bin/pyrun")
    podman(*build, "-t", "built", str(tmp_path)).ok()
    assert podman.says("run", "--rm", *ISOLATED, "built", "cat", "/built", "made").split()[0] == "0"
    (tmp_path / "Containerfile").write_text(f"FROM {IMAGE}\nRUN exit 3\nRUN no-such\n")
    failed = podman(*build, str(tmp_path))
    assert failed.rc == 3, failed.describe()
    podman("rmi", "built").ok()


def test_terminal_has_its_size_and_is_a_session(podman: Client) -> None:
    script = "stty size; readlink /proc/self/fd/0; cut -d' ' -f6 /proc/1/stat"
    told = podman.terminal("run", "--rm", "-it", *ISOLATED, IMAGE, "sh", "-c", "stty rows 33 cols 99; " + script).ok()
    assert re.findall(r"\d+|/dev/\S+", told.out) == ["33", "99", "/dev/pts/0", "1"], told.describe()


def test_conmon_is_killed(podman: Client) -> None:
    """podman finds out, and removes what is left. A newer one ends the container first, fails because conmon left no
    exit code, whichever the runtime, and removes it when it is asked again.
    """
    podman("run", "-d", "--name", "orphan", *ISOLATED, IMAGE).ok()
    (conmon,) = pids_named("conmon", "orphan")
    os.kill(conmon, signal.SIGKILL)
    wait_until(lambda: not pids_named("conmon", "orphan"), "conmon to die")
    podman("exec", "orphan", "true")
    remove = ("rm", "-f", "-t", "0", "orphan")
    if podman.version() >= (5, 0):
        podman(*remove).fails(125, "conmon exited prematurely, exit code could not be retrieved")
    podman(*remove).ok()
    assert podman.says("run", "--rm", *ISOLATED, IMAGE, "echo", "on") == "on"
