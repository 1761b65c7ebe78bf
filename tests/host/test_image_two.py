"""One store, many processes: the daemon and `pyrun image` at once, opened, filled, emptied and killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pyrun.errors import FailedPrecondition
from pyrun.image.reference import parse_reference
from pyrun.image.store import Images
from tests.support.layers import wait_unfilled
from tests.support.registry.made import Made, make_image, small_tar

# argv: root, a number of its own, seconds. Adds an image with a layer that all share and one of its own, holds it,
# sees that every layer is whole, lets it go and opens the store anew; what it can't do is told on stderr.
WORKER = """
import os, sys, time
from pyrun.image.reference import parse_reference
from pyrun.image.store import Images
from tests.support.registry.made import make_image, small_tar

root, number, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
shared = small_tar("shared")
end, turns = time.monotonic() + seconds, 0
while time.monotonic() < end or not turns:
    images = Images(root)
    assert images.damaged == [], images.damaged
    for _ in range(3):
        made = make_image([shared, small_tar(f"own-{number}-{turns}")])
        image = images.add(made.source(), [parse_reference(f"q.io/a{number}:1")])
        lowers = images.hold(image.id, f"holder{number}")
        for lower, name in zip(lowers, (f"own-{number}-{turns}", "shared")):
            assert os.listdir(lower) == [name], (lower, os.listdir(lower))
        images.release(f"holder{number}")
        images.remove(image.id)
        turns += 1
    images.close()
print(turns, flush=True)
"""


def worker(root: str, number: int, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WORKER, root, str(number), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def left(root: str) -> list[str]:
    return os.listdir(f"{root}/ingest") + os.listdir(f"{root}/layers")


def swept(root: str) -> Images:
    """The store, opened again. A child that the killed process was about to start has its locks for a moment more, and
    what they are on is then left to the start after that one."""
    deadline = time.monotonic() + 60
    while True:
        images = Images(root)
        images.settle()
        assert images.damaged == []
        if not os.listdir(f"{root}/ingest") or time.monotonic() > deadline:
            return images
        images.close()
        time.sleep(0.05)


def small(name: str) -> Made:
    return make_image([small_tar("shared"), small_tar(name)])


def test_processes_that_add_remove_and_sweep(tmp_path: Path) -> None:
    """The store is made by all of them at once; each finds its own image whole; nothing is left by their ends."""
    root = str(tmp_path / "image")
    workers = [worker(root, number, 3.0) for number in range(4)]
    told = [process.communicate(timeout=60) for process in workers]
    assert [(process.returncode, errors) for process, (_, errors) in zip(workers, told, strict=True)] == [(0, "")] * 4
    images = Images(root)
    images.settle()
    assert (images.list(), left(root), images.usage()) == ([], [], (0, 0))


def test_processes_that_are_killed(tmp_path: Path) -> None:
    """Killed at any moment, next to one that lives and holds an image: that stays whole, and all else can be swept."""
    root = str(tmp_path / "image")
    images = Images(root)
    kept = images.add(small("kept").source(), [parse_reference("q.io/kept:1")])
    lowers = images.hold(kept.id, "holder")
    chance = random.Random(8)
    for turn in range(8):
        process = worker(root, turn, 30.0)
        time.sleep(0.3 + chance.random() * 0.4)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        assert images.find("q.io/kept:1").id == kept.id
        assert [os.listdir(lower) for lower in lowers] == [["kept"], ["shared"]]
    wait_unfilled(Path(root))
    again = swept(root)
    for image in again.list():
        assert all(len(os.listdir(lower)) == 1 for lower in again.lowers(image.id))
        for number in range(8):
            again.release(f"holder{number}")
        if image.id != kept.id:
            again.remove(image.id)
    assert os.listdir(f"{root}/ingest") == []
    assert sorted(os.listdir(f"{root}/layers")) == sorted(os.path.basename(lower) for lower in lowers)


def test_what_another_process_holds_stays(tmp_path: Path) -> None:
    """A container of the daemon's is seen by `pyrun image rm`, which is another process."""
    daemon, other = Images(str(tmp_path / "image")), Images(str(tmp_path / "image"))
    image = daemon.add(small("a").source(), [parse_reference("q.io/a:1")])
    daemon.hold(image.id, "c1")
    with pytest.raises(FailedPrecondition, match="in use by c1"):
        other.remove("q.io/a:1")
    assert other.prune(all=True) == (0, 0)
    daemon.release("c1")
    other.remove("q.io/a:1")
    assert daemon.list() == []
