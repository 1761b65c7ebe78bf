"""Limits of block devices, on a disk that nothing else uses."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.container.bundle import Bundle, BundleMaker
from tests.support.container.runner import Runner
from tests.support.vm.cgroup import ATTEMPTS, MIB, Cgroup, resources

DISK = "/dev/scratch"
READ = "dd if=/dev/disk of=/dev/null bs=64k count=48 iflag=direct"
WRITE = "dd if=/dev/zero of=/dev/disk bs=64k count=48 oflag=direct"
SLOW_S = 2.0  # 3 MiB at 1 MiB/s; without a limit it takes some 0.1 s


def numbers() -> dict[str, int]:
    rdev = os.stat(DISK).st_rdev
    return {"major": os.major(rdev), "minor": os.minor(rdev)}


def with_disk(bundle: BundleMaker, script: str, **sections: object) -> Bundle:
    """A container with the disk as /dev/disk and these limits."""
    limits: dict[str, object] = {"devices": [{"allow": True, "type": "b", **numbers(), "access": "rw"}], **sections}
    device = {"path": "/dev/disk", "type": "b", **numbers(), "fileMode": 0o600}
    return bundle(["sh", "-c", script], linux={"devices": [device], **resources(**limits)})


def seconds_of(pyrun: Runner, id: str, command: str) -> float:
    start = time.monotonic()
    pyrun.exec(id, "sh", "-c", command).ok()
    return time.monotonic() - start


def is_fast(pyrun: Runner, id: str, command: str) -> bool:
    """One of a few tries is: a busy host holds the guest up now and then, a limit each time."""
    return any(seconds_of(pyrun, id, command) < SLOW_S for _ in range(ATTEMPTS))


@pytest.mark.parametrize(
    ("limit", "slow", "fast", "rate"),
    [
        ("throttleReadBpsDevice", READ, WRITE, MIB),
        ("throttleWriteBpsDevice", WRITE, READ, MIB),
        ("throttleReadIOPSDevice", READ, WRITE, 16),
        ("throttleWriteIOPSDevice", WRITE, READ, 16),
    ],
)
def test_throttle(pyrun: Runner, bundle: BundleMaker, limit: str, slow: str, fast: str, rate: int) -> None:
    made = with_disk(bundle, "sleep 1000", blockIO={limit: [{**numbers(), "rate": rate}]})
    id = pyrun.create_started(made)
    assert seconds_of(pyrun, id, slow) > SLOW_S
    assert is_fast(pyrun, id, fast)


def test_update_of_a_throttle(pyrun: Runner, bundle: BundleMaker) -> None:
    disk = ":".join(str(number) for number in numbers().values())
    id = pyrun.create_started(with_disk(bundle, "sleep 1000"))
    assert is_fast(pyrun, id, READ)
    pyrun("update", "-r", "-", id, input=f'{{"unified": {{"io.max": "{disk} rbps=1048576"}}}}').ok()
    assert seconds_of(pyrun, id, READ) > SLOW_S
    pyrun("update", "-r", "-", id, input=f'{{"unified": {{"io.max": "{disk} rbps=max"}}}}').ok()
    assert is_fast(pyrun, id, READ)


@pytest.fixture
def bfq() -> Iterator[None]:
    """The scheduler that has weights, on the disk."""
    scheduler = Path("/sys/block", Path(DISK).resolve().name, "queue", "scheduler")
    subprocess.run(["modprobe", "bfq"], check=True)
    scheduler.write_text("bfq")
    yield
    scheduler.write_text("none")


def test_weight_where_the_scheduler_has_it(pyrun: Runner, bundle: BundleMaker, bfq: None) -> None:
    made = with_disk(bundle, "sleep 1000", blockIO={"weight": 300})
    id = pyrun.create_started(made)
    assert Cgroup(pyrun, id).read("io.bfq.weight") == "default 300"
    pyrun("update", "--blkio-weight", "700", id).ok()
    assert Cgroup(pyrun, id).read("io.bfq.weight") == "default 700"


def test_statistics_name_the_disk(pyrun: Runner, bundle: BundleMaker) -> None:
    id = pyrun.create_started(with_disk(bundle, "sleep 1000"))
    seconds_of(pyrun, id, WRITE)
    line = next(line for line in Cgroup(pyrun, id).read("io.stat").splitlines() if f":{numbers()['minor']} " in line)
    assert f"wbytes={3 * MIB} " in line
    assert f'"value":{3 * MIB}' in pyrun("events", "--stats", id).ok().out.replace(" ", "")
