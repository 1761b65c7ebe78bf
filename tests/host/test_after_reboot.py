"""What a state directory that outlives a reboot holds: containers of another boot, some of them torn by a power cut.

A record is given another boot's id, and the end of a file is cut off or zeroed. tests/vm_host/test_power_cut.py does it
with a machine's real disk; here each place of a file gets its turn.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.container.bundle import Bundle, BundleMaker
from tests.support.container.record import sealed
from tests.support.container.runner import Runner, python_argv, runtime_argv

GRAMMAR = re.compile(r"pyrun: [a-z]+ \S+: .+\n  hint: pyrun delete --force one removes what is left of it\n")
OTHER_BOOT = b"00000000-0000-4000-8000-000000000000"
STEP, PLAN_STEP = 512, 2048


@pytest.fixture(params=[runtime_argv, python_argv], ids=["launcher", "python"])
def runner(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Runner]:
    made = Runner(tmp_path / "state", request.param())
    yield made
    made.delete_all()


def rebooted(runner: Runner, made: Bundle) -> dict[str, bytes]:
    """Makes container `one`, which has run and was not deleted before the reboot; its files."""
    runner.create_started(made, id="one")
    kept = {name: (runner.root / "one" / name).read_bytes() for name in ("record", "config.json")}
    runner("delete", "--force", "one").ok()
    record = kept["record"]
    now = Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    assert record.count(now) == 1
    kept["record"] = sealed(record.replace(now, OTHER_BOOT))
    put(runner, kept)
    return kept


def put(runner: Runner, files: dict[str, bytes]) -> None:
    directory = runner.root / "one"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700, parents=True)
    for name, data in files.items():
        (directory / name).write_bytes(data)
        (directory / name).chmod(0o600)


def test_a_container_of_before_has_stopped(runner: Runner, bundle: BundleMaker) -> None:
    rebooted(runner, bundle(["sleep", "1000"]))
    assert runner.state("one")["status"] == "stopped"
    assert runner.state("one")["pid"] == 0
    assert runner("list").ok().out.splitlines()[1].split()[:3] == ["one", "0", "stopped"]
    runner("start", "one").fails(1, "stopped")
    runner.exec("one", "true").fails(1)
    runner.delete("one").ok()
    assert runner.ids() == []


def test_its_cgroup_may_be_anothers_now(runner: Runner, bundle: BundleMaker, pyrun: Runner, tmp_path: Path) -> None:
    """The name of the cgroup is all that is left of it; what runs there now stays."""
    made = bundle(["sleep", "1000"], linux={"cgroupsPath": f"/reboot-{tmp_path.name}"})
    kept = rebooted(runner, made)
    other = Runner(tmp_path / "other")
    other.create_started(made, id="two")
    try:
        for argv in (["delete", "one"], ["delete", "--force", "one"]):
            put(runner, kept)
            runner(*argv).ok()
            put(runner, {**kept, "config.json": b""})
            runner(*argv).ok()
            assert other.state("two")["status"] == "running"
    finally:
        other.delete_all()
