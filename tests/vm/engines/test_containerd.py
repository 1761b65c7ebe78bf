"""containerd's shim runs containers on pyrun, for ctr and for CRI; configured as docs/containerd.md says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.engines.engine import IMAGE, Client, config_file, config_of, pids_named, systemctl, wait_until

CONF = "/etc/containerd/config.toml"
SOCKET = "/run/containerd/containerd.sock"
RUN = ("run", "--runc-binary", "/usr/local/bin/pyrun")
# There is no registry: the sandbox's image is ours as well.
OFFLINE = f'\n[plugins."io.containerd.grpc.v1.cri"]\n  sandbox_image = "{IMAGE}"\n'


@pytest.fixture(scope="module")
def ctr(image: Path) -> Iterator[Client]:
    client = Client("ctr")
    with config_file(CONF, config_of("containerd.md", CONF) + OFFLINE):
        systemctl("restart", "containerd")
        for namespace in ("default", "k8s.io"):
            client("-n", namespace, "images", "import", str(image)).ok()
        client(*RUN, "--rm", IMAGE, "first", "true").ok()
        yield client
        systemctl("stop", "containerd")


@pytest.fixture
def running(ctr: Client) -> Iterator[str]:
    """A task that sleeps."""
    ctr(*RUN, "-d", "--memory-limit", str(64 << 20), IMAGE, "c1", "sleep", "100000").ok()
    yield "c1"
    ctr("tasks", "delete", "--force", "c1")
    ctr("containers", "delete", "c1").ok()


def status(ctr: Client, id: str) -> str:
    rows = [line.split() for line in ctr("tasks", "ls").ok().out.splitlines()]
    return next((row[2] for row in rows if row[0] == id), "")


def test_run_and_how_it_ends(ctr: Client) -> None:
    result = ctr(*RUN, "--rm", IMAGE, "c0", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (result.rc, result.out) == (7, "out\n") and "err\n" in result.err
    result = ctr(*RUN, "--rm", IMAGE, "c0", "no-such-program")
    assert result.rc == 1 and '"no-such-program": executable file not found in $PATH' in result.err
    terminal = ctr.terminal(*RUN, "--rm", "-t", IMAGE, "c0", "sh", "-c", "tty; exit 3")
    assert terminal.rc == 3 and "/dev/pts/0" in terminal.out, terminal.describe()


def test_a_life(ctr: Client, running: str) -> None:
    with subprocess.Popen(["ctr", "events"], stdout=subprocess.PIPE, text=True) as events:
        try:
            assert ctr("tasks", "exec", "--exec-id", "e1", running, "echo", "inside").ok().out == "inside\n"
            assert ctr("tasks", "exec", "--exec-id", "e2", running, "sh", "-c", "exit 3").rc == 3
            assert "/dev/pts/" in ctr.terminal("tasks", "exec", "-t", "--exec-id", "e3", running, "tty").ok().out
            ctr("tasks", "pause", running).ok()
            assert status(ctr, running) == "PAUSED"
            ctr("tasks", "resume", running).ok()
            assert status(ctr, running) == "RUNNING"
            assert len(ctr("tasks", "ps", running).ok().out.splitlines()) == 2
            metrics = json.loads(ctr("tasks", "metrics", "--format", "json", running).ok().out)
            assert "memory" in json.dumps(metrics).lower()
            ctr("tasks", "kill", "--signal", "SIGKILL", running).ok()
            wait_until(lambda: status(ctr, running) == "STOPPED", "the task to stop")
        finally:
            events.terminate()
        seen = events.communicate()[0]
    for topic in ("exec-added", "exec-started", "paused", "resumed", "exit"):
        assert f"/tasks/{topic}" in seen, seen


def test_rounds(ctr: Client) -> None:
    """The same id again: nothing of the last round is in the way."""
    for _ in range(5):
        assert ctr(*RUN, "--rm", IMAGE, "again", "echo", "x").ok().out == "x\n"
    assert set(os.listdir("/run/containerd/runc/default")) <= {".plans~"}  # plans that pyrun keeps


def test_the_shim_is_killed(ctr: Client, running: str) -> None:
    (shim,) = pids_named("containerd-shim-runc-v2", running)
    os.kill(shim, signal.SIGKILL)
    wait_until(lambda: status(ctr, running) in ("", "STOPPED", "UNKNOWN"), "containerd to notice")
    assert not pids_named("sleep", "100000"), "the container outlived its shim's clean-up"


def test_containerd_is_killed_and_comes_back(ctr: Client, running: str) -> None:
    """systemd starts it again; the shim and its container know nothing of it."""
    (daemon,) = pids_named("containerd")
    os.kill(daemon, signal.SIGKILL)
    wait_until(lambda: pids_named("containerd") not in ([], [daemon]), "systemd to start it again")
    wait_until(lambda: ctr("version").rc == 0, "it to answer")
    assert status(ctr, running) == "RUNNING"
    assert ctr("tasks", "exec", "--exec-id", "e1", running, "echo", "inside").ok().out == "inside\n"
