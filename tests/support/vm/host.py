"""A pytest plugin for the host's side: items marked `vm` run in a guest, and their reports appear as if they ran here.

The marker's argument names a group, `vm` if there is none: pytest.mark.vm("engines", memory=3072, cpus=1), with the
MiB and the processors that its guest gets. Each group is run by a process of its own (group.py), which starts before
the first test and writes what its guest says into .cache/vm/logs/. The other tests run meanwhile; then come the items
marked `vm`, whose reports are read from there. However the session ends, those processes end with it.

In continuous integration the programs for the items marked `cluster` are built first, in the place of a guest
(kube/beside.py); those items come between the other tests and the guests' reports.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.container.leaks import BESIDE
from tests.support.container.runner import REPO
from tests.support.kube import beside
from tests.support.machines_network import machines_network
from tests.support.vm import machine as vm_machine
from tests.support.vm.job import LOGS

if TYPE_CHECKING:
    from tests.support.vm.group import Request

IN_GUEST = "PYRUN_VM_ITEMS" in os.environ
POLL_S = 0.05
EACH_S = 10.0  # about what a test takes, unless its marker says otherwise
LAST_WORDS_S = 60.0  # from the last report of a guest to its end
END_S = 30.0


def guests_at_once() -> int:
    """How many groups may run at a time: PYRUN_VM_GUESTS, or as many as there are processors, up to three."""
    return int(os.environ.get("PYRUN_VM_GUESTS", min(3, len(os.sched_getaffinity(0)))))


def is_vm(item: pytest.Item) -> bool:
    return item.get_closest_marker("vm") is not None


def is_cluster(item: pytest.Item) -> bool:
    return item.get_closest_marker("cluster") is not None


def group_of(item: pytest.Item) -> str:
    """The name of the group that an item marked `vm` is in."""
    marker = item.get_closest_marker("vm")
    assert marker is not None
    return str(marker.args[0]) if marker.args else "vm"


def memory_of(items: list[pytest.Item]) -> int:
    """The MiB that the neediest of these items asks for."""
    markers = [marker for item in items for marker in item.iter_markers("vm")]
    return max(int(marker.kwargs.get("memory", vm_machine.MEMORY_MIB)) for marker in markers)


def cpus_of(items: list[pytest.Item]) -> int:
    """The processors that the neediest of these items asks for."""
    markers = [marker for item in items for marker in item.iter_markers("vm")]
    return max(int(marker.kwargs.get("cpus", vm_machine.CPUS)) for marker in markers)


def append_of(items: list[pytest.Item]) -> str:
    """What these items ask to have on the kernel's command line, behind the rest, where a later word wins."""
    markers = [marker for item in items for marker in item.iter_markers("vm")]
    return " ".join(dict.fromkeys(str(marker.kwargs["append"]) for marker in markers if "append" in marker.kwargs))


def seconds_of(items: list[pytest.Item]) -> float:
    """About how long these items take, by what their markers say of each."""
    return sum(float(next(item.iter_markers("vm")).kwargs.get("each", EACH_S)) for item in items)


class Group:
    """The items of one group, and the process that runs them."""

    def __init__(self, name: str, items: list[pytest.Item]) -> None:
        self.name = name
        self.config = items[0].config
        self.request: Request = {
            "name": name,
            "items": [item.nodeid for item in items],
            "files": {item.nodeid: str(item.path.relative_to(item.config.rootpath)) for item in items},
            "memory": memory_of(items),
            "cpus": cpus_of(items),
            "append": append_of(items),
        }
        self.figures: list[str] = []
        self.kernel = ""
        self.engines: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self._got: dict[str, list[pytest.TestReport]] = {}
        self._done: set[str] = set()
        self._pending = b""

    def start(self) -> None:
        """In a session of its own, so that Ctrl-C reaches pytest alone, and what other tests look at can leave it out;
        and with mounts of its own, which making the guest takes.
        """
        LOGS.mkdir(parents=True, exist_ok=True)
        path = LOGS / f"{self.name}.jsonl"
        path.unlink(missing_ok=True)
        self._errors = path.with_suffix(".err")
        argv = ["setpriv", "--pdeathsig", "TERM", "unshare", "--mount", "--propagation", "private"]
        argv += [sys.executable, "-m", "tests.support.vm.group"]
        with path.open("wb") as out, self._errors.open("wb") as errors, machines_network():
            self._events = path.open("rb")
            self.process = subprocess.Popen(
                argv, cwd=REPO, stdin=subprocess.PIPE, stdout=out, stderr=errors, start_new_session=True
            )
        BESIDE.add(self.process.pid)
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(self.request).encode())
        self.process.stdin.close()

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def reports(self, nodeid: str) -> list[pytest.TestReport] | None:
        """Of the item's setup, call and teardown, or of its loss; None until they are all there."""
        if self.process is None:
            return None
        ended = not self.is_running()
        if not self._read() and ended and nodeid not in self._done:
            said = self._errors.read_text(errors="replace")
            self._add_lost(nodeid, f"the process that runs guests ended with {self.process.returncode}\n{said}")
        return self._got[nodeid] if nodeid in self._done else None

    def finish(self) -> None:
        """Waits for the guest's end, and so for its last words."""
        with suppress(subprocess.TimeoutExpired):
            if self.process is not None:
                self.process.wait(LAST_WORDS_S)
                self._read()

    def stop(self) -> None:
        """Ends the process, its guest and whatever else it has started, if they still run."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._events.close()

    def _read(self) -> bool:
        """Takes in what is new; whether there was anything."""
        data = self._events.read()
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            self._take(json.loads(line))
        return bool(data)

    def _take(self, event: dict[str, Any]) -> None:
        match event:
            case {"event": "report", "data": data}:
                report = self.config.hook.pytest_report_from_serializable(config=self.config, data=data)
                self._got.setdefault(report.nodeid, []).append(report)
                if report.when == "teardown":
                    self._done.add(report.nodeid)
            case {"event": "lost", "nodeid": nodeid, "text": text}:
                self._add_lost(nodeid, text)
            case {"event": "again", "nodeid": nodeid, "name": name}:
                self._got.pop(nodeid, None)
                self.figures.append(f"guest {name}: its kernel locked up in {nodeid}; begun again")
            case {"event": "prepared", "name": name, "seconds": seconds, "engines": engines}:
                self.engines = engines
                self.figures.append(f"guest {name}: prepared in {seconds:.0f} s")
            case {"event": "booted", "at": seconds}:
                self.figures[-1] += f", up after {seconds:.0f} s"
            case {"event": "exit", "at": seconds, "free_kib": free}:
                self.figures[-1] += f", done after {seconds:.0f} s with {free >> 10} MiB free"
            case {"event": "collected", "kernel": kernel}:
                self.kernel = kernel

    def _add_lost(self, nodeid: str, text: str) -> None:
        got = self._got.setdefault(nodeid, [])
        when = ("setup", "call", "teardown")[min(len(got), 2)]
        path, _, name = nodeid.partition("::")
        got.append(pytest.TestReport(nodeid, (path, 0, name), {}, "failed", text, when))  # type: ignore[arg-type]
        self._done.add(nodeid)


class Plugin:
    """Registered on the host by tests/conftest.py."""

    def __init__(self) -> None:
        self.groups: dict[str, Group] = {}
        self.reason = ""
        self.building: beside.Building | None = None

    @pytest.hookimpl(wrapper=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
        """Puts what runs in a guest last, group by group, once the markers are there and the selection is made. The
        group that takes longest is the first to start, so that none is left to run alone at the end.
        """
        yield
        for item in items:
            if config.getoption("--in-guest") and not is_vm(item):
                item.add_marker(pytest.mark.vm)
        groups: dict[str, list[pytest.Item]] = {}
        for item in filter(is_vm, items):
            groups.setdefault(group_of(item), []).append(item)
        names = sorted(groups, key=lambda name: -seconds_of(groups[name]))
        items.sort(key=lambda item: names.index(group_of(item)) if is_vm(item) else is_cluster(item) - 2)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """The groups' processes live while this runs, whichever way it is left."""
        items = [item for item in session.items if is_vm(item)]
        option = session.config.option
        failed = session.testsfailed and not option.continue_on_collection_errors
        if not option.collectonly and not failed and beside.wanted() and any(map(is_cluster, session.items)):
            self.building = beside.Building()
        if option.collectonly or failed or not (items or self.building):
            return (yield)
        self.reason = vm_machine.why_not()
        if not self.reason:
            for name in dict.fromkeys(map(group_of, items)):
                self.groups[name] = Group(name, [item for item in items if group_of(item) == name])
        try:
            result = yield
            for group in self.groups.values():
                group.finish()
            return result
        finally:
            for each in self._beside():
                each.stop()

    def _beside(self) -> list[Group | beside.Building]:
        """What runs beside the tests. The build is first: the guest, which the groups wait for, is made meanwhile."""
        return [*([self.building] if self.building else []), *self.groups.values()]

    def _start_groups(self) -> None:
        """Starts the next groups as far as there is room."""
        for each in self._beside():
            running = sum(other.is_running() for other in self._beside())
            if each.process is None and running < guests_at_once():
                each.start()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        self._start_groups()
        if self.building and is_cluster(item):
            self.building.wait(self._start_groups)
            self.building = None
        if not is_vm(item):
            return None
        hook = item.ihook
        hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in self._reports(item):
            hook.pytest_runtest_logreport(report=report)
        hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def _reports(self, item: pytest.Item) -> list[pytest.TestReport]:
        if self.reason:
            where = (str(item.path), 0, f"Skipped: no guest: {self.reason}")
            return [pytest.TestReport(item.nodeid, item.location, {}, "skipped", where, "setup")]
        group = self.groups[group_of(item)]
        while (reports := group.reports(item.nodeid)) is None:
            self._start_groups()
            time.sleep(POLL_S)
        return reports

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if not self.groups:
            return
        terminalreporter.write_sep("=", "guests")
        for line in sum((group.figures for group in self.groups.values()), []):
            terminalreporter.write_line(line)
        terminalreporter.write_line(f"their consoles and reports: {os.path.relpath(LOGS)}")


def add_option(parser: pytest.Parser) -> None:
    parser.addoption("--in-guest", action="store_true", help="run every selected test in a guest, whatever its tier")


def install(config: pytest.Config) -> None:
    """Makes items marked `vm` run in a guest; in the guest itself they just run."""
    if not IN_GUEST:
        config.pluginmanager.register(Plugin(), "pyrun-vm")
