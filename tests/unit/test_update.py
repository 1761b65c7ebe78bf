"""The plan of update, and what it writes back where it fails."""

from __future__ import annotations

import pytest

from pyrun.plan.cgroup.resources import ResourcePlan, Write
from pyrun.plan.model.steps import PARENT, UNDO, Step, WriteFile
from pyrun.plan.update import before, files_of, plan_update

MOUNT = "/sys/fs/cgroup"


def written(steps: list[Step]) -> list[tuple[object, object]]:
    return [(step.args["path"], step.args["data"]) for step in steps if isinstance(step, WriteFile)]


def planned(
    *writes: Write, now: dict[str, str], controllers: tuple[str, ...] = ()
) -> list[list[tuple[object, object]]]:
    limits = ResourcePlan(writes, controllers)
    plan = plan_update(limits.writes, limits.controllers, mount=MOUNT, cgroup=f"{MOUNT}/a/b", now=now)
    return [written(plan.lanes[lane]) for lane in (PARENT, UNDO)]


def test_old_values_go_back_in_reverse_order() -> None:
    writes = (Write("memory.max", "4096", "/memory/limit"), Write("cpu.max", "1000 5000", "/cpu/quota"))
    done, undone = planned(*writes, now={"memory.max": "max\n", "cpu.max": "max 100000\n"})
    assert done == [("memory.max", "4096"), ("cpu.max", "1000 5000")]
    assert undone == [("cpu.max", "max 100000"), ("memory.max", "max")]


def test_controllers_are_enabled_on_the_way_to_the_cgroup() -> None:
    done, undone = planned(Write("pids.max", "3", "/pids/limit"), now={}, controllers=("pids",))
    assert done == [
        (f"{MOUNT}/cgroup.subtree_control", "+pids"),
        (f"{MOUNT}/a/cgroup.subtree_control", "+pids"),
        ("pids.max", "3"),
    ]
    assert undone == []  # a file that was not there has nothing to go back to


def test_the_alternative_of_a_write_goes_back_too() -> None:
    write = Write("io.bfq.weight", "100", "/blockIO/weight", (2,), ("io.weight", "910"))
    assert files_of([write]) == {"io.bfq.weight", "io.weight"}
    _, undone = planned(write, now={"io.weight": "default 100\n8:0 50\n"})
    assert undone == [("io.weight", "default 100")]


@pytest.mark.parametrize(
    "file, value, now, back",
    [
        ("io.max", "8:0 rbps=9", "8:0 rbps=5 wbps=max riops=1 wiops=max\n", "8:0 rbps=5 wbps=max riops=1 wiops=max"),
        ("io.max", "8:16 rbps=1000", "8:0 rbps=5\n", "8:16 rbps=max wbps=max riops=max wiops=max"),
        ("io.weight", "8:0 200", "default 100\n8:0 50\n", "8:0 50"),
        ("io.weight", "8:16 200", "default 100\n8:0 50\n", "8:16 default"),
        ("cpuset.cpus", "0-1", "\n", "\n"),
        ("cpu.max", "1000 5000", "max 100000\n", "max 100000"),
        ("hugetlb.2MB.max", "0", "max\n", "max"),
    ],
)
def test_what_goes_back(file: str, value: str, now: str, back: str) -> None:
    assert before(Write(file, value, ""), {file: now}) == [(file, back)]


def test_schemata_of_resctrl() -> None:
    group = "/sys/fs/resctrl/gold/schemata"
    plan = plan_update((), (), mount=MOUNT, cgroup="", now={}, schemata=[(group, "L3:0=f", "L3:0=7ff")])
    assert [written(plan.lanes[lane]) for lane in (PARENT, UNDO)] == [[(group, "L3:0=f\n")], [(group, "L3:0=7ff\n")]]
