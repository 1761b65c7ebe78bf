"""containerd's own shim drives pyrun through ctr, as an operator would switch an engine over: --runc-binary names
it. Twice: Debian's, and a newer one that continuous integration and `make containerd-2` build."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.container.bundle import BundleMaker
from tests.support.container.runner import Result, runtime_argv
from tests.support.engines import containerd_2
from tests.support.engines.containerd import Containerd, containerd, missing
from tests.support.engines.golang import Unavailable

STATE = Path("/run/containerd/runc/default")


def path_of(version: str) -> str:
    """A PATH with the programs of this containerd; skips the test where there are none."""
    if version == "debian":
        if missing():
            pytest.skip(f"not installed: {', '.join(missing())} (Debian's containerd)")
        return os.environ["PATH"]
    if not containerd_2.is_built() and "CI" not in os.environ:
        pytest.skip(f"not built: containerd {version} (make containerd-2 does it, and needs Go)")
    try:
        containerd_2.build_containerd()
    except Unavailable as error:
        pytest.skip(str(error))
    return f"{containerd_2.CACHE}:{os.environ['PATH']}"


@pytest.fixture(scope="module", params=["debian", containerd_2.VERSION])
def daemon(request: pytest.FixtureRequest) -> Iterator[Containerd]:
    path = path_of(request.param)
    directory = Path(tempfile.mkdtemp(prefix="ctrd-", dir="/run"))
    try:
        with containerd(directory, path) as running:
            said = running.ctr("version").ok().out
            assert (containerd_2.VERSION[1:] in said) == (request.param == containerd_2.VERSION), said
            yield running
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class Engine:
    """ctr run with a config of ours: its own default asks for cpu.weight, and the host may lack that controller."""

    def __init__(self, daemon: Containerd, bundle: BundleMaker) -> None:
        self.ctr = daemon.ctr
        self._bundle = bundle

    def run(self, id: str, *argv: str, options: tuple[str, ...] = ("--rm",)) -> Result:
        b = self._bundle(argv, linux={"cgroupsPath": f"/ctr/{id}"})
        b.update(root={"path": str(b.rootfs)})
        return self.ctr(
            "run",
            *options,
            "--runtime",
            "io.containerd.runc.v2",
            "--runc-binary",
            runtime_argv()[0],
            "--config",
            b.path / "config.json",
            id,
        )


@pytest.fixture
def engine(daemon: Containerd, bundle: BundleMaker) -> Iterator[Engine]:
    engine = Engine(daemon, bundle)
    yield engine
    assert engine.ctr("containers", "ls", "-q").ok().out == engine.ctr("tasks", "ls", "-q").ok().out == ""
    assert list(STATE.glob("*")) == []
    if (
        parent := Path("/sys/fs/cgroup/ctr")
    ).exists():  # the parent of cgroupsPath is the engine's, but where our create failed
        parent.rmdir()


def test_run_and_its_output(engine: Engine) -> None:
    result = engine.run("c1", "sh", "-c", "echo out; echo err >&2; id -u").ok()
    assert result.out.splitlines()[0] == "out" and result.out.splitlines()[-1] == "0"
    assert "err" in result.err


def test_exit_code(engine: Engine) -> None:
    assert engine.run("c2", "sh", "-c", "exit 7").rc == 7


def test_an_error_reaches_the_client(engine: Engine) -> None:
    """The shim shows what pyrun wrote to --log."""
    result = engine.run("c3", "no-such-program")
    assert result.rc != 0 and "executable file not found in $PATH" in result.err, result.describe()


def test_detached_with_exec_pause_and_kill(engine: Engine) -> None:
    engine.run("c4", "sleep", "60", options=("-d",)).ok()
    try:
        assert "RUNNING" in engine.ctr("tasks", "ls").ok().out
        # Not `echo` alone: ctr cancels its copying when the process has ended; a busy machine can lose all of it.
        said = engine.ctr("tasks", "exec", "--exec-id", "e1", "c4", "sh", "-c", "echo inside; sleep 0.5").ok()
        assert said.out == "inside\n"
        assert engine.ctr("tasks", "exec", "--exec-id", "e2", "c4", "sh", "-c", "exit 3").rc == 3
        engine.ctr("tasks", "pause", "c4").ok()
        assert "PAUSED" in engine.ctr("tasks", "ls").ok().out
        engine.ctr("tasks", "resume", "c4").ok()
        assert len(engine.ctr("tasks", "ps", "c4").ok().out.splitlines()) == 2
        engine.ctr("tasks", "metrics", "c4").ok()
        engine.ctr("tasks", "kill", "--signal", "SIGKILL", "c4").ok()
        for _ in range(100):
            if "STOPPED" in engine.ctr("tasks", "ls").ok().out:
                break
            time.sleep(0.05)
        engine.ctr("tasks", "delete", "c4")
    finally:
        engine.ctr("tasks", "delete", "--force", "c4")
        engine.ctr("containers", "delete", "c4").ok()


def test_rounds(engine: Engine) -> None:
    """The same id again and again: nothing of the last round is in the way."""
    for _ in range(5):
        assert engine.run("again", "echo", "x").ok().out == "x\n"
    assert "again" not in os.listdir("/sys/fs/cgroup/ctr")
