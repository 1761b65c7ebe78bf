"""`pyrun addons`: three programs that share memory, and nothing else."""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyrun.cli.main import main
from tests.support.container.runner import wait_for
from tests.support.dashboard import Served, a_dashboard

PATIENCE_S = 60.0


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    (tmp_path / "pods").mkdir()
    beside = (
        shlex.join(["collect", "--dir", str(tmp_path / "pods"), "--store", str(tmp_path / "logs")]),
        shlex.join(["metrics", "--address", "127.0.0.1:0", "--listen", str(tmp_path / "none.sock")]),
    )
    with a_dashboard(tmp_path, tmp_path / "none.sock", tmp_path / "pods", beside=beside) as found:
        yield found


def children(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def test_all_run_and_one_that_is_killed_runs_again(served: Served, tmp_path: Path) -> None:
    parent = served.process.pid
    wait_for(lambda: "/metrics/cadvisor" in served.said.read_text(), PATIENCE_S, "metrics")
    wait_for((tmp_path / "logs").exists, PATIENCE_S, "collect")
    first = children(parent)
    assert len(first) == 3 and served.get("/api/state") is not None
    os.kill(first[0], signal.SIGKILL)
    again = "pyrun: addons: collect ended with -9; it is started again in 0.5 s"
    wait_for(lambda: again in served.said.read_text() and len(children(parent)) == 3, PATIENCE_S, "another one")
    assert set(children(parent)) > set(first[1:]) and first[0] not in children(parent)


def test_they_end_with_it(tmp_path: Path) -> None:
    """Also where it is killed: nobody would start them again, or end them."""
    beside = ("metrics --address 127.0.0.1:0",)
    with contextlib.suppress(AssertionError), a_dashboard(tmp_path, tmp_path, tmp_path, beside=beside) as found:
        below = [os.pidfd_open(pid) for pid in children(found.process.pid)]
        found.process.kill()
        ended = [bool(select.select([pidfd], [], [], PATIENCE_S)[0]) for pidfd in below]
        for pidfd in below:
            os.close(pidfd)
    assert ended == [True, True]


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["cri"], "'cri' is none of metrics, collect, dashboard"),
        ([""], "'' is none of"),
        (["collect --nonsense"], "--nonsense"),
        (["collect", "collect --keep 24h"], "the same command twice"),
        (["collect 'x"], "No closing quotation"),
    ],
)
def test_what_can_not_be_run_is_told_first(capfd: pytest.CaptureFixture[str], argv: list[str], told: str) -> None:
    assert main(["addons", *argv]) == 1
    assert told in capfd.readouterr().err
