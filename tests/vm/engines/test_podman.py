"""podman, with conmon, runs its containers on pyrun; configured as docs/podman.md says."""

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

CONF = "/etc/containers/containers.conf.d/pyrun.conf"
ISOLATED = ("--network", "none")


@pytest.fixture(scope="module")
def podman(image: Path) -> Iterator[Client]:
    client = Client("podman")
    with config_file(CONF, config_of("podman.md", CONF)):
        client("load", "-q", "-i", str(image)).ok()
        client("run", "--rm", *ISOLATED, IMAGE, "true").ok()
        yield client
        client("rm", "-fa", "-t", "0")
        client("volume", "rm", "-fa")


def test_run_and_how_it_ends(podman: Client) -> None:
    assert podman("info", "--format", "{{.Host.OCIRuntime.Name}} {{.Host.CgroupManager}}").out == "pyrun systemd\n"
    result = podman("run", "--rm", *ISOLATED, IMAGE, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (result.rc, result.out, result.err) == (7, "out\n", "err\n")
    result = podman("run", "--rm", *ISOLATED, IMAGE, "no-such-program")
    assert result.rc == 127 and '"no-such-program": executable file not found in $PATH' in result.err
    assert "from config.json" not in result.err.splitlines()[0]
    assert podman("run", "--rm", *ISOLATED, IMAGE, "/etc").rc == 126
    terminal = podman.terminal("run", "--rm", "-it", *ISOLATED, IMAGE, "sh", "-c", "tty; exit 3")
    assert terminal.rc == 3 and "/dev/pts/0" in terminal.out, terminal.describe()


def test_options(podman: Client, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "hello").write_text("there")
    podman("volume", "create", "--opt", "o=uid=1000", "options").ok()
    told = podman("run", "--rm", *options(tmp_path, "options"), IMAGE, "sh", "-c", REPORT)
    assert wrong_options(report_of(told)) == {}
    podman("volume", "rm", "options").ok()
    assert (
        podman("run", "--rm", *ISOLATED, "--pids-limit", "-1", IMAGE, "cat", "/sys/fs/cgroup/pids.max").ok().out
        != "1\n"
    )


def test_namespaces_and_rights(podman: Client) -> None:
    for file in ("/etc/subuid", "/etc/subgid"):
        if "containers:" not in Path(file).read_text():
            with open(file, "a") as ids:
                ids.write("containers:2000000:1000000\n")
    auto = podman("run", "--rm", *ISOLATED, "--userns=auto", IMAGE, "cat", "/proc/self/uid_map").ok()
    assert auto.out.split() == ["0", "2000000", "1024"]
    script = "mkdir /m; mount -t tmpfs t /m && echo mounted; grep CapEff /proc/self/status; ls -l /dev/kmsg"
    privileged = podman("run", "--rm", *ISOLATED, "--privileged", IMAGE, "sh", "-c", script).ok()
    assert "mounted" in privileged.out and "000001ffffffffff" in privileged.out, privileged.describe()
    without = podman("run", "--rm", *ISOLATED, "--cgroups=disabled", IMAGE, "cat", "/proc/self/cgroup").ok()
    assert "libpod" not in without.out
    shared = podman("run", "--rm", "--network=host", "--pid=host", "--ipc=host", "--uts=host", IMAGE, "hostname").ok()
    assert shared.out == os.uname().nodename + "\n"


def test_a_life(podman: Client) -> None:
    script = 'trap "exit 5" TERM; echo started; while :; do sleep 0.2; done'
    podman(
        "run",
        "-d",
        "--name",
        "life",
        *ISOLATED,
        "--health-cmd",
        "test -e /etc",
        "--health-interval",
        "disable",
        IMAGE,
        "sh",
        "-c",
        script,
    ).ok()
    try:
        assert podman("exec", "-i", "life", "cat", input="in put").ok().out == "in put"
        assert podman("exec", "life", "sh", "-c", "exit 9").rc == 9
        assert podman("exec", "life", "no-such-program").rc == 127
        assert "/dev/pts/" in podman.terminal("exec", "-it", "life", "tty").ok().out
        podman("healthcheck", "run", "life").ok()
        (stats,) = json.loads(podman("stats", "--no-stream", "--format", "json", "life").ok().out)
        assert int(stats["pids"]) >= 2 and stats["mem_usage"] != "0B / 0B", stats
        podman("update", "--cpus", "0.3", "--memory", "70m", "life").ok()
        files = "/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/memory.max"
        assert podman("exec", "life", "cat", *files).ok().out.split() == ["30000", "100000", str(70 << 20)]
        podman("pause", "life").ok()
        assert podman("inspect", "--format", "{{.State.Status}}", "life").ok().out == "paused\n"
        podman("unpause", "life").ok()
        assert "sleep" in podman("top", "life").ok().out
        podman("restart", "-t", "20", "life").ok()
        podman("kill", "-s", "TERM", "life").ok()
        assert podman("wait", "life").ok().out == "5\n"
        assert podman("logs", "life").ok().out == "started\n" * 2
    finally:
        podman("rm", "-f", "-t", "0", "life").ok()


def test_a_pod(podman: Client) -> None:
    infra = ("--infra-image", IMAGE, "--infra-command", "sleep 1000")
    podman("pod", "create", "--name", "pod", *ISOLATED, *infra).ok()
    try:
        podman("run", "-d", "--pod", "pod", "--name", "one", IMAGE, "sleep", "1000").ok()
        podman("run", "-d", "--pod", "pod", "--name", "two", IMAGE, "sleep", "1000").ok()
        script = "readlink /proc/self/ns/net; readlink /proc/self/ns/mnt"
        one, two = (podman("exec", name, "sh", "-c", script).ok().out.split() for name in ("one", "two"))
        assert one[0] == two[0] and one[1] != two[1]
        podman("pod", "stop", "-t", "1", "pod").ok()
        assert podman("pod", "inspect", "--format", "{{.State}}", "pod").ok().out == "Exited\n"
    finally:
        podman("pod", "rm", "-f", "-t", "0", "pod").ok()


def test_conmon_is_killed(podman: Client) -> None:
    """podman finds out, and removes what is left."""
    podman("run", "-d", "--name", "orphan", *ISOLATED, IMAGE).ok()
    (conmon,) = pids_named("conmon", "orphan")
    os.kill(conmon, signal.SIGKILL)
    wait_until(lambda: not pids_named("conmon", "orphan"), "conmon to die")
    podman("exec", "orphan", "true")
    podman("rm", "-f", "-t", "0", "orphan").ok()
    assert podman("run", "--rm", *ISOLATED, IMAGE, "echo", "on").ok().out == "on\n"


@pytest.fixture
def rootless(podman: Client, image: Path, tmp_path: Path) -> Iterator[Client]:
    """podman of a user with a user manager, as after a log-in."""
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


def test_rootless(rootless: Client) -> None:
    script = "id -u; cat /proc/self/uid_map; cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max"
    told = rootless("run", "--rm", *ISOLATED, "--memory", "64m", "--pids-limit", "30", IMAGE, "sh", "-c", script).ok()
    words = told.out.split()
    assert words[:4] == ["0", "0", "1000", "1"] and words[-2:] == [str(64 << 20), "30"], told.describe()
    rootless("run", "-d", "--name", "mine", *ISOLATED, IMAGE).ok()
    assert rootless("exec", "mine", "id", "-u").ok().out == "0\n"
    rootless("pause", "mine").ok()
    rootless("unpause", "mine").ok()
    rootless("rm", "-f", "-t", "0", "mine").ok()
    assert rootless("run", "--rm", *ISOLATED, "--userns=keep-id", IMAGE, "id", "-u").ok().out == "1000\n"
