"""What becomes of a group's tests when the kernel of its guest locks up, from words on a console alone."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.vm import group as vm_group
from tests.support.vm import machine as vm_machine
from tests.support.vm.host import Group, cpus_of
from tests.support.vm.machine import GuestDied, LockedUp, Machine, diagnose

STALL = "[ 90.1] rcu: INFO: rcu_preempt self-detected stall on CPU\n"
STUCK = "[ 98.5] watchdog: BUG: soft lockup - CPU#0 stuck for {}s! [podman:5487]\n"
LOCKED = "before\n" + STALL + STUCK.format(45) + STUCK.format(44) + "[ 120.0] NMI backtrace for cpu 1\n"
BOOTED = json.dumps({"event": "booted"})


def test_a_lock_up_is_shown_from_its_start() -> None:
    text = diagnose(LOCKED + "more\n" * 200, None, 30)
    first, *rest = text.splitlines()
    assert first == "the guest's kernel locked up: CPU#0 stuck for 45s! [podman:5487]"
    assert rest[0] == STALL.rstrip() and "NMI backtrace for cpu 1" in text


def test_a_panic_or_an_end_after_a_lock_up_is_none() -> None:
    assert diagnose(f"{LOCKED}Kernel panic - not syncing: x\n", 0).startswith("the guest's kernel panicked: x")
    assert diagnose(LOCKED, -9).startswith("QEMU ended with status -9")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A guest that has booted, and says no more."""
    (tmp_path / "console").write_text("")
    process = subprocess.Popen(["sh", "-c", f"echo '{BOOTED}'; exec sleep 1000"], stdout=subprocess.PIPE)
    yield Machine(process, tmp_path, tmp_path / "console")
    process.kill()
    process.communicate()


@pytest.mark.parametrize(
    ("before", "since", "silence", "death", "told"),
    [
        ("", STUCK.format(112), 10000, LockedUp, "the guest's kernel locked up: CPU#0 stuck for 112s! [podman:5487]"),
        ("", STUCK.format(45), 3, LockedUp, "the guest's kernel locked up: CPU#0 stuck for 45s! [podman:5487]"),
        ("", STALL, 3, GuestDied, "the guest hangs: it said nothing for 3 s"),
        (STUCK.format(112), "", 2.4, GuestDied, "the guest hangs: it said nothing for 2 s"),
    ],
    ids=["at once", "silent", "only stalled", "got over it"],
)
def test_given_up(machine: Machine, before: str, since: str, silence: float, death: type[GuestDied], told: str) -> None:
    machine.console.write_text(before)
    events = machine.events(silence)
    assert next(events) == {"event": "booted"}
    machine.console.write_text(before + since)
    with pytest.raises(GuestDied) as died:
        next(events)
    assert type(died.value) is death
    assert str(died.value).startswith(told) and "(the console takes no sysrq" in str(died.value)


class Deaths(vm_group.GroupRun):
    """Guests that each run what waits until they die of what is given, in the second item that they come to."""

    def __init__(self, *deaths: type[GuestDied] | None) -> None:
        files = dict.fromkeys("abcd", "f")
        super().__init__({"name": "g", "items": list("abcd"), "files": files, "memory": 1, "cpus": 1, "append": ""})
        self._deaths = list(deaths)

    def _run_in_guest(self, number: int) -> None:
        death = self._deaths[number - 1]
        for n, nodeid in enumerate(list(self.waiting)):
            self._running = nodeid
            if n == (number == 1) and death:
                raise death(f"{death.__name__} {number}")
            self.waiting.remove(nodeid)


@pytest.mark.parametrize(
    ("deaths", "told"),
    [
        ((LockedUp, None), [("again", "b")]),
        ((LockedUp, LockedUp, None), [("again", "b"), ("lost", "b")]),
        ((GuestDied, None), [("lost", "b")]),
        ((LockedUp, GuestDied, None), [("again", "b"), ("lost", "b")]),
        ((GuestDied, GuestDied, LockedUp), [("lost", "b"), ("lost", "c"), ("lost", "d")]),
    ],
)
def test_begun_again_once(
    deaths: tuple[type[GuestDied] | None, ...], told: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    run = Deaths(*deaths)
    run.run()
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(event["event"], event["nodeid"]) for event in events] == told
    assert all(event["name"] == "g1" for event in events if event["event"] == "again")
    assert not run.waiting


@pytest.mark.parametrize(("asked", "cpus"), [([1], 1), ([1, None], 2), ([1, 3], 3), ([None], 2)])
def test_a_group_has_the_processors_of_its_neediest_test(
    monkeypatch: pytest.MonkeyPatch, asked: list[int | None], cpus: int
) -> None:
    """Two where a marker says nothing."""
    marks = [pytest.mark.vm("g") if each is None else pytest.mark.vm("g", cpus=each) for each in asked]
    items: Any = [SimpleNamespace(iter_markers=lambda _, mark=mark.mark: [mark]) for mark in marks]
    assert cpus_of(items) == cpus
    monkeypatch.delenv("PYRUN_VM_CPUS", raising=False)
    argv = vm_machine.qemu_argv(Path("guest"), Path("job"), Path("scratch"), "run", cpus=cpus)
    assert argv[argv.index("-smp") + 1] == str(cpus)


def test_what_was_told_of_the_first_time_is_forgotten(request: pytest.FixtureRequest) -> None:
    """And the summary says that there was one."""
    request.node.add_marker(pytest.mark.vm("g"))
    group = Group("g", [request.node])
    nodeid = request.node.nodeid
    report = pytest.TestReport(nodeid, ("f", 0, "t"), {}, "passed", None, "setup")
    data = request.config.hook.pytest_report_to_serializable(config=request.config, report=report)
    for event in (
        {"event": "prepared", "name": "g1", "seconds": 1, "engines": {}},
        {"event": "booted", "at": 2},
        {"event": "report", "data": data},
        {"event": "again", "nodeid": nodeid, "name": "g1"},
        {"event": "lost", "nodeid": nodeid, "text": "died"},
    ):
        group._take(event)
    assert group.figures[1] == f"guest g1: its kernel locked up in {nodeid}; begun again"
    assert [report.longreprtext for report in group._got[nodeid]] == ["died"]
