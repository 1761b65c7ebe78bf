"""The power goes in the middle of lifecycles: QEMU is killed, and the guest booted again with the same disk.

PYRUN_POWER_CUTS says how often (2), PYRUN_POWER_SEED begins another sequence of moments, and with PYRUN_POWER_PODS=1
`pyrun cri` has pods there too (`make power-cuts`; not in CI, as it takes minutes). support/vm/power_cut.py is what the
guest does, and what it looks at.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.vm import machine as vm_machine
from tests.support.vm.job import job_disk
from tests.support.vm.power_cut import NOTHING_YET
from tests.support.vm.power_cut_cri import STEADY

CUTS = int(os.environ.get("PYRUN_POWER_CUTS", "2"))
SEED = os.environ.get("PYRUN_POWER_SEED", "1")
PODS = os.environ.get("PYRUN_POWER_PODS") == "1"
KEPT_MIB = 1024 if PODS else 64  # images leave some of a disk free
SILENCE_S = 240.0
EARLIEST_S, LATEST_S = 3.0, 15.0
RUN = """#!/bin/sh
exec 2>&1
cd /job/src
export PYRUN_VIEW=vm PYRUN_TEST_RUNTIME=/usr/local/bin/pyrun PYTHONPATH=/job/site:/usr/local/lib/pyrun
export PYTHONDONTWRITEBYTECODE=1
word=$(tr ' ' '\\n' </proc/cmdline | sed -n 's/^pyrun.cut=//p')
exec python3 -m tests.support.vm.power_cut $(echo "$word" | tr , ' ')
"""


@pytest.fixture(scope="module")
def guest() -> Path:
    problem = vm_machine.why_not()
    if problem:
        pytest.skip(f"no guest: {problem}")
    return vm_machine.make_guest()


@pytest.fixture
def job(guest: Path) -> Iterator[Path]:
    with job_disk(RUN) as disk:
        yield disk


def boot_until_cut(guest: Path, job: Path, console: Path, kept: Path, words: str, after: float) -> dict[str, Any]:
    """What the guest says of the last cut. It is killed `after` seconds of work, or ends, when it has no work to do."""
    found: dict[str, Any] = {}
    with vm_machine.boot(guest, job, console, f"pyrun.cut={words}", kept) as machine:
        for event in machine.events(SILENCE_S):
            assert event["event"] != "failed", event["text"]
            if event["event"] == "checked":
                found = event
            if event["event"] == "working":
                time.sleep(after)
                machine.process.kill()
                return found
        assert machine.rc == 0, vm_machine.tail(machine.console_text())
    return found


def test_power_cut(guest: Path, job: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    with kept.open("wb") as file:
        file.truncate(KEPT_MIB << 20)
    moments = random.Random(SEED)
    first, last = NOTHING_YET, f"{SEED},last"
    for cut in range(CUTS + 1):
        words = (f"{SEED}.{cut}" if cut < CUTS else last) + (",pods" if PODS else "")
        after = moments.uniform(EARLIEST_S, LATEST_S)
        found = boot_until_cut(guest, job, tmp_path / f"console{cut}", kept, words, after)
        print(f"cut {cut}: {found}, the next after {after:.1f} s")
        if not cut:
            assert found["left"] == first
        if PODS:
            assert (STEADY in found["pods"]) == bool(cut), found
    assert found["left"] != first, "the cuts came before anything was written"
