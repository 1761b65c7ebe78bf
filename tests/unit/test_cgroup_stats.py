"""Statistics and events from the files of a cgroup, of every controller, as a made-up directory has them."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from pyrun.runtime import events as module
from pyrun.runtime.cgroup_stats import UNLIMITED, collect_stats, counters
from pyrun.runtime.events import events
from pyrun.runtime.record import Record
from pyrun.runtime.store import RUNNING, Container, Store

FILES = {
    "cpu.stat": "usage_usec 5000\nuser_usec 3000\nsystem_usec 2000\nnr_periods 7\nnr_throttled 2\nthrottled_usec 40\n",
    "cpu.pressure": "some avg10=1.50 avg60=0.00 avg300=0.00 total=99\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
    "memory.stat": "anon 100\nfile 4096\nsomething new\n",
    "memory.current": "8192\n",
    "memory.max": "1048576\n",
    "memory.peak": "9000\n",
    "memory.swap.current": "1000\n",
    "memory.swap.max": "max\n",
    "pids.current": "3\n",
    "pids.max": "10\n",
    "io.stat": "8:0 rbytes=10 wbytes=20 rios=1 wios=0 dbytes=0 dios=0\n259:1 rbytes=30\nnonsense\n",
    "hugetlb.2MB.current": "2097152\n",
    "hugetlb.2MB.events": "max 4\n",
    "cgroup.events": "populated 1\nfrozen 0\n",
    "memory.events": "low 0\noom 0\noom_kill 0\n",
}


@pytest.fixture
def cgroup(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_every_controller(cgroup: Path) -> None:
    data = collect_stats(str(cgroup))
    assert data["cpu"]["usage"] == {"total": 5_000_000, "kernel": 2_000_000, "user": 3_000_000}
    assert data["cpu"]["throttling"] == {"periods": 7, "throttledPeriods": 2, "throttledTime": 40_000}
    assert data["cpu"]["psi"]["some"] == {"avg10": 1.5, "avg60": 0.0, "avg300": 0.0, "total": 99}
    assert data["memory"]["usage"] == {"limit": 1048576, "usage": 8192, "max": 9000, "failcnt": 0}
    assert data["memory"]["swap"] == {"limit": UNLIMITED, "usage": 9192, "failcnt": 0}
    assert (data["memory"]["cache"], data["memory"]["raw"]) == (4096, {"anon": 100, "file": 4096})
    assert data["pids"] == {"current": 3, "limit": 10}
    assert data["blkio"]["ioServiceBytesRecursive"] == [
        {"major": 8, "op": "Read", "value": 10},
        {"major": 8, "op": "Write", "value": 20},
        {"major": 259, "minor": 1, "op": "Read", "value": 30},
    ]
    assert data["blkio"]["ioServicedRecursive"] == [{"major": 8, "op": "Read", "value": 1}, {"major": 8, "op": "Write"}]


def test_huge_pages(cgroup: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyrun.runtime.cgroup_stats._page_sizes", lambda: ["2MB", "1GB"])
    assert collect_stats(str(cgroup))["hugetlb"] == {"2MB": {"usage": 2097152, "failcnt": 4}}


def test_without_controllers_there_are_still_statistics(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").write_text("12\n13\n")
    data = collect_stats(str(tmp_path))
    assert data["pids"] == {"current": 2}
    assert data["memory"] == {} and data["blkio"] == {}
    assert data["cpu"] == {"usage": {"kernel": 0, "user": 0}}


def test_no_pids_limit_is_left_out(cgroup: Path) -> None:
    (cgroup / "pids.max").write_text("max\n")
    assert collect_stats(str(cgroup))["pids"] == {"current": 3}


def test_counters_skip_what_they_do_not_understand(cgroup: Path) -> None:
    (cgroup / "cpu.stat").write_text("a 1\nb\nc x\nd 1 2\ne 5\n")
    assert counters(str(cgroup / "cpu.stat")) == {"a": 1, "e": 5}


class _Running(Container):
    def status(self) -> str:
        return RUNNING


def test_each_kill_of_the_oom_killer_is_an_event(cgroup: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record(b_cgroup=str(cgroup).encode())
    monkeypatch.setattr(Store, "open", lambda self, id: _Running(id, "", record))
    monkeypatch.setattr(module, "_stats", lambda id, cgroup: {"type": "stats"})

    stream = events(Store("/nowhere"), "c", interval=0.02)
    assert next(stream) == {"type": "stats"}
    (cgroup / "memory.events").write_text("low 0\noom 1\noom_kill 2\n")
    assert {"type": "oom", "id": "c"} in islice(stream, 500)
    (cgroup / "cgroup.events").write_text("populated 0\n")
    assert list(stream).count({"type": "oom", "id": "c"}) == 1, "the second, and no third"
