"""What test_beside.py has run: a test in a guest, and one on the host that waits for the guest and ends the run."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from tests.support.container.runner import wait_for


@pytest.mark.vm("beside")
def test_in_the_guest() -> None:
    assert Path("/job/items").exists()


def test_on_the_host() -> None:
    """Writes down which processes and files there are because of the guest."""
    wait_for(lambda: bool(disks()), 200, "the guest")
    found = {"pids": descendants(os.getpid()), "files": sorted(disks())}
    Path(os.environ["BESIDE_FOUND"]).write_text(json.dumps(found))
    match os.environ["BESIDE_END"]:
        case "fail":
            raise AssertionError("as told")
        case "exit":
            pytest.exit("as told", 7)
        case name:
            os.kill(os.getpid(), signal.Signals[name])


def disks() -> set[str]:
    """The files that QEMU, and no shorter run of it for its version, was given."""
    lines = [read(pid, "cmdline") for pid in descendants(os.getpid())]
    return {file for line in lines for file in re.findall(r"file=([^,]+(?:\.ext4|\.disk|/scratch))", line)}


def read(pid: int, name: str) -> str:
    """A file of the process's; nothing if it is gone."""
    try:
        return Path("/proc", str(pid), name).read_text()
    except OSError:
        return ""


def descendants(pid: int) -> list[int]:
    children = [int(word) for word in read(pid, f"task/{pid}/children").split()]
    return [*children, *(other for child in children for other in descendants(child))]
