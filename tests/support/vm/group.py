"""One group's tests in its guests: a program beside the pytest run on the host (host.py), which started it.

It reads what to run from stdin, a JSON object (Request), and prints an event a line: what the guest says, and `lost`
for each item that no guest finished, with why. A guest that dies (a panic, a hang) loses the item it was at; the rest
go to the next guest, of which there are a few at most. Where its kernel says that it is locked up, which no item can
bring about, the item is not lost, but begun again there, once. Told to end, it takes its guest and its files with it.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn, TypedDict

from tests.conformance.run import build_suite
from tests.support.engines.cri_tools import build_cri_tools
from tests.support.engines.golang import Unavailable
from tests.support.vm import machine as vm_machine
from tests.support.vm.job import LOGS, job_disk
from tests.support.vm.machine import GuestDied, LockedUp

SILENCE_S = 400.0  # more than a test may take there
NICE = 5  # the tests of the host wait for shorter times
GUESTS = 3
PASSED = "PYRUN_SOAK_"  # variables that reach the guest
RUN = """#!/bin/sh
# What the guest does: the tests that `items` names.
exec 2>&1
cd /job/src
export PYRUN_VM_ITEMS=/job/items PYRUN_VIEW=vm PYRUN_TEST_RUNTIME=/usr/local/bin/pyrun
export PYTHONPATH=/job/site:/usr/local/lib/pyrun PYTHONDONTWRITEBYTECODE=1
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 {passed}
python3 -m pytest -q -p tests.support.vm.guest -p no:cacheprovider --color=no --tb=short \
    --continue-on-collection-errors {files}
"""


class Request(TypedDict):
    """The group's name, the ids of its items in their order, the file of each, the MiB and the processors that a guest
    needs, and what is appended to its kernel's command line.
    """

    name: str
    items: list[str]
    files: dict[str, str]
    memory: int
    cpus: int
    append: str


def tell(event: str, **fields: Any) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


class GroupRun:
    """The group's run in as many guests as it takes."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.waiting = list(request["items"])
        self._running = ""
        self._again: set[str] = set()
        self._collect_errors = ""

    def run(self) -> None:
        """Runs all; afterwards each item has had its reports or is told as lost."""
        for number in range(1, GUESTS + 1):
            self._running, locked_up = "", False
            try:
                self._run_in_guest(number)
                death = "the guest's pytest ended before it came to this item"
            except GuestDied as died:
                death, locked_up = str(died), isinstance(died, LockedUp)
            except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                return self._lose_all(f"no guest could be prepared: {error}")
            if not self.waiting:
                return
            last = self._running or self.waiting[0]
            if locked_up and last not in self._again and number < GUESTS:
                self._begin_again(last, number)
            else:
                self._lose(last, death)
        self._lose_all(f"not run: {GUESTS} guests died, the last in {last}")

    def _begin_again(self, nodeid: str, number: int) -> None:
        self._again.add(nodeid)
        tell("again", nodeid=nodeid, name=f"{self.request['name']}{number}")

    def _lose(self, nodeid: str, why: str) -> None:
        self.waiting.remove(nodeid)
        tell("lost", nodeid=nodeid, text=why)

    def _lose_all(self, why: str) -> None:
        for nodeid in list(self.waiting):
            self._lose(nodeid, why)

    def _run_in_guest(self, number: int) -> None:
        """Boots a guest that runs what still waits."""
        started = time.monotonic()
        files = list(dict.fromkeys(self.request["files"][nodeid] for nodeid in self.waiting))
        if any("conformance" in file for file in files):
            with suppress(Unavailable):  # its tests say so
                build_suite()
        if any("test_cri" in file for file in files):
            build_cri_tools()  # or leaves word for the tests why not
        guest = vm_machine.make_guest()
        name = f"{self.request['name']}{number}"
        items = "\n".join(self.waiting) + "\n"
        passed = [f"{key}={shlex.quote(value)}" for key, value in os.environ.items() if key.startswith(PASSED)]
        with job_disk(RUN.format(files=" ".join(files), passed=" ".join(passed)), items=items) as disk:
            engines = vm_machine.list_engines(guest)
            tell("prepared", name=name, seconds=time.monotonic() - started, engines=engines)
            console = LOGS / f"{name}.log"
            r = self.request
            with vm_machine.boot(guest, disk, console, r["append"], memory=r["memory"], cpus=r["cpus"]) as machine:
                for event in machine.events(SILENCE_S):
                    print(json.dumps({"at": round(machine.seconds(), 2), **event}), flush=True)
                    self._note(event, machine)

    def _note(self, event: dict[str, Any], machine: vm_machine.Machine) -> None:
        match event:
            case {"event": "collect-error"}:
                self._collect_errors += f"{event['nodeid']}\n{event['text']}\n"
            case {"event": "collected", "missing": missing}:
                for nodeid in missing:
                    self._lose(nodeid, f"the guest did not collect this item\n{self._collect_errors}")
            case {"event": "start", "nodeid": nodeid}:
                self._running = nodeid
            case {"event": "report", "data": {"when": "teardown", "nodeid": nodeid}}:
                self._running = ""
                self.waiting.remove(nodeid)
            case {"event": "gone", "text": text}:
                raise GuestDied(f"{text}\n{vm_machine.tail(machine.console_text())}")


def end(_signal: int, _frame: FrameType | None) -> NoReturn:
    """Ends what this process has started, which is in its process group, and then itself: files are cleaned up."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    sys.exit(128 + signal.SIGTERM)


def main() -> None:
    signal.signal(signal.SIGTERM, end)
    os.nice(NICE)
    GroupRun(json.load(sys.stdin)).run()


if __name__ == "__main__":
    main()
