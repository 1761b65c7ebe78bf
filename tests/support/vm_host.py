"""A pytest plugin for the host's side: items marked `vm` run in a guest, and their reports appear as if they ran here.

The marker's argument names a group, `vm` if there is none: pytest.mark.vm("engines", memory=3072), with the MiB its
guest needs. A group's items are given to one guest at the first. One that dies (a panic, a hang) fails the item it was
at, and the rest go to the next guest, of which there are a few at most. The guests' consoles and their reports as they
came stay in .cache/vm/logs, by the group's name.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Generator
from typing import Any

import pytest

from tests.support import vm_machine
from tests.support.vm_job import CACHE, job_disk, one_at_a_time
from tests.support.vm_machine import GuestDied

LOGS = CACHE / "logs"
SILENCE_S = 240.0
GUESTS = 3
IN_GUEST = "PYRUN_VM_ITEMS" in os.environ
RUN = """#!/bin/sh
# What the guest does: the tests that `items` names.
exec 2>&1
cd /job/src
export PYRUN_VM_ITEMS=/job/items PYRUN_VIEW=vm PYRUN_TEST_RUNTIME=/usr/local/bin/pyrun
export PYTHONPATH=/job/site:/usr/local/lib/pyrun PYTHONDONTWRITEBYTECODE=1
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1
python3 -m pytest -q -p tests.support.vm_guest -p no:cacheprovider --color=no --tb=short {files}
"""


def group_of(item: pytest.Item) -> str:
    """The name of the group that an item marked `vm` is in."""
    marker = item.get_closest_marker("vm")
    assert marker is not None
    return str(marker.args[0]) if marker.args else "vm"


def memory_of(items: list[pytest.Item]) -> int:
    """The MiB that the neediest of these items asks for."""
    markers = [marker for item in items for marker in item.iter_markers("vm")]
    return max(int(marker.kwargs.get("memory", vm_machine.MEMORY_MIB)) for marker in markers)


class GuestRun:
    """A group's run in as many guests as it takes. `reports(item)` waits for those of one item."""

    def __init__(self, name: str, items: list[pytest.Item]) -> None:
        self.name = name
        self.memory = memory_of(items)
        self.config = items[0].config
        self.waiting = [item.nodeid for item in items]
        self.paths = {item.nodeid: str(item.path.relative_to(item.config.rootpath)) for item in items}
        self.figures: list[str] = []
        self.trouble = ""
        self._guests = 0
        self._events: Generator[dict[str, Any], None, None] | None = None

    def reports(self, nodeid: str) -> list[pytest.TestReport]:
        """Setup, call and teardown of this item."""
        got: list[pytest.TestReport] = []
        try:
            if self.trouble:
                raise GuestDied(self.trouble)
            for event in self._stream():
                if event["event"] == "report":
                    report = self.config.hook.pytest_report_from_serializable(config=self.config, data=event["data"])
                    assert report.nodeid == nodeid, f"{report.nodeid} came while waiting for {nodeid}"
                    got.append(report)
                    if report.when == "teardown":
                        self.waiting.remove(nodeid)
                        return got
                elif nodeid in event.get("missing", ()):
                    raise GuestDied(f"the guest did not collect this item\n{self._collect_errors}")
            raise GuestDied("the guest's pytest ended before it came to this item")
        except GuestDied as death:
            return [*got, self._failure(nodeid, str(death), got)]
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            self.trouble = f"no guest could be prepared: {error}"
            return [self._failure(nodeid, self.trouble, got)]

    def _stream(self) -> Generator[dict[str, Any], None, None]:
        if self._events is None:
            self._collect_errors = ""
            self._events = self._boot()
        return self._events

    def _boot(self) -> Generator[dict[str, Any], None, None]:
        """The events of one guest, which runs what still waits."""
        self._guests += 1
        started = time.monotonic()
        with one_at_a_time():
            guest = vm_machine.make_guest()
        LOGS.mkdir(parents=True, exist_ok=True)
        files = " ".join(dict.fromkeys(self.paths[nodeid] for nodeid in self.waiting))
        run = RUN.format(files=files)
        name = f"{self.name}{self._guests}"
        log = (LOGS / f"{name}.jsonl").open("w")
        with log, job_disk(run, items="\n".join(self.waiting) + "\n") as disk:
            prepared = time.monotonic() - started
            with vm_machine.boot(guest, disk, LOGS / f"{name}.log", memory=self.memory) as machine:
                for event in machine.events(SILENCE_S):
                    log.write(json.dumps({"at": round(machine.seconds(), 2), **event}) + "\n")
                    log.flush()
                    self._note(event, machine, prepared)
                    yield event

    def _note(self, event: dict[str, Any], machine: vm_machine.Machine, prepared: float) -> None:
        match event["event"]:
            case "collect-error":
                self._collect_errors += f"{event['nodeid']}\n{event['text']}\n"
            case "gone":
                raise GuestDied(f"{event['text']}\n{vm_machine.tail(machine.console_text())}")
            case "booted":
                times = f"prepared in {prepared:.0f} s, up after {machine.seconds():.0f} s"
                self.figures.append(f"guest {self.name}{self._guests}: {times}")
            case "exit":
                free = event["free_kib"] >> 10
                self.figures[-1] += f", done after {machine.seconds():.0f} s with {free} MiB free"

    def _failure(self, nodeid: str, text: str, got: list[pytest.TestReport]) -> pytest.TestReport:
        """A report for an item that the guest did not finish; the next item gets a new guest, or is told the same."""
        if self._events is not None:
            self._events.close()
            self._events = None
        if self.waiting and nodeid in self.waiting:
            self.waiting.remove(nodeid)
        if self._guests >= GUESTS:
            self.trouble = self.trouble or f"not run: {GUESTS} guests died, the last in {nodeid}"
        when = ("setup", "call", "teardown")[min(len(got), 2)]
        path, _, name = nodeid.partition("::")
        return pytest.TestReport(nodeid, (path, 0, name), {}, "failed", text, when)  # type: ignore[arg-type]

    def close(self) -> None:
        """Waits for the last guest's end, and so for its last words."""
        if self._events is not None:
            try:
                for _ in self._events:
                    pass
            except GuestDied as death:
                self.figures.append(str(death))


class Plugin:
    """Registered on the host by tests/conftest.py."""

    def __init__(self) -> None:
        self._runs: dict[str, GuestRun] = {}
        self._reason: str | None = None

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        if config.getoption("--in-guest"):
            for item in items:
                if item.get_closest_marker("vm") is None:
                    item.add_marker(pytest.mark.vm)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        if item.get_closest_marker("vm") is None:
            return None
        hook = item.ihook
        hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in self._reports(item):
            hook.pytest_runtest_logreport(report=report)
        hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def _reports(self, item: pytest.Item) -> list[pytest.TestReport]:
        if self._reason is None:
            self._reason = vm_machine.why_not()
        if self._reason:
            where = (str(item.path), 0, f"Skipped: no guest: {self._reason}")
            return [pytest.TestReport(item.nodeid, item.location, {}, "skipped", where, "setup")]
        name = group_of(item)
        if name not in self._runs:
            vm_items = [other for other in item.session.items if other.get_closest_marker("vm")]
            self._runs[name] = GuestRun(name, [other for other in vm_items if group_of(other) == name])
        return self._runs[name].reports(item.nodeid)

    def pytest_sessionfinish(self) -> None:
        for run in self._runs.values():
            run.close()

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if not self._runs:
            return
        terminalreporter.section("guests")
        for line in sum((run.figures for run in self._runs.values()), []):
            terminalreporter.write_line(line)
        terminalreporter.write_line(f"their consoles and reports: {os.path.relpath(LOGS)}")


def add_option(parser: pytest.Parser) -> None:
    parser.addoption("--in-guest", action="store_true", help="run every selected test in a guest, whatever its tier")


def install(config: pytest.Config) -> None:
    """Makes items marked `vm` run in a guest; in the guest itself they just run."""
    if not IN_GUEST:
        config.pluginmanager.register(Plugin(), "pyrun-vm")
