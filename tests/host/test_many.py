"""Fifty containers at once (tests/bench/many.py has the figures for 500): no process of pyrun's but the inits."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from tests.bench.many import measure, prepare
from tests.support.container.bundle import BundleMaker
from tests.support.container.runner import Runner, python_argv, runtime_argv


@pytest.mark.parametrize("way", [runtime_argv, python_argv], ids=["launcher", "python"])
def test_fifty_at_once(tmp_path: Path, way: object) -> None:
    assert callable(way)
    many = prepare(tmp_path, 50, way())
    try:
        figures = measure(many, lambda what: None)
    finally:
        many.runner.delete_all()
    parked, running = figures["memory"]
    assert (parked["others"], running["others"]) == (0, 0)
    assert 0 < parked["init KiB"] < 300
    first, last = (statistics.median(figures["create"][part]) for part in (slice(0, 10), slice(40, 50)))
    assert last < 3 * first + 20, "the more there are, the longer one takes"
    assert many.runner.ids() == []


def test_two_thousand_mounts(pyrun: Runner, bundle: BundleMaker, tmp_path: Path) -> None:
    """More than the usual limit of descriptors; the container has them all, and nothing else is open in it."""
    file = tmp_path / "file"
    file.write_text("f")
    made = bundle(["sh", "-c", "grep -c ' /m/' /proc/self/mountinfo; ls /proc/self/fd"])
    for i in range(2000):
        mount = {"destination": f"/m/{i}", "source": str(file), "type": "bind", "options": ["bind", "ro"]}
        made.config["mounts"].append(mount)
    out = pyrun.run(made.save()).ok().out.split()
    assert out[0] == "2000" and set(out[1:]) <= {"0", "1", "2", "3"}, "3 is ls's own"
