"""linux.intelRdt as steps, rule by rule of config-linux.md; no machine here has resctrl."""

from __future__ import annotations

from typing import Any

import pytest

from pyrun.errors import ConfigError
from pyrun.facts import Facts
from pyrun.oci.model import IntelRdt, Linux, Root, Spec
from pyrun.plan.cgroup.intelrdt import plan_rdt_delete, plan_rdt_group, plan_rdt_join
from pyrun.plan.model.plan import Builder
from pyrun.plan.model.steps import PARENT, PID_DATA, UNDO, Step, Unlinkat, WriteFile

MOUNT = "/sys/fs/resctrl"
NOW = "    L3:0=7ff;1=7FF\n    MB:0= 100;1=100\n"


def spec_of(**rdt: Any) -> Spec:
    return Spec(oci_version="1.3.0", root=Root(path="rootfs"), linux=Linux(intel_rdt=IntelRdt(**rdt)))


def planned(now: str | None, **rdt: Any) -> tuple[list[Step], list[Step]]:
    """The parent's steps and the undo lane, for a group that says `now` (None: is not there)."""
    b = Builder()
    plan_rdt_group(b, spec_of(**rdt), Facts(resctrl_mount=MOUNT, resctrl_schemata=now), "web")
    plan = b.plan()
    return plan.lanes[PARENT], plan.lanes[UNDO]


def shown(steps: list[Step]) -> list[tuple[str, object, object]]:
    return [(type(step).__name__, step.args["path"], step.args.get("data")) for step in steps]


def test_without_a_clos_id_the_group_is_the_containers_own() -> None:
    done, undone = planned(None, l3_cache_schema="L3:0=f", mem_bw_schema="MB:0=20", schemata=("L2:0=f", "MB:1=70"))
    assert shown(done) == [
        ("Mkdirat", f"{MOUNT}/web", None),
        *(("WriteFile", f"{MOUNT}/web/schemata", f"{line}\n") for line in ("L3:0=f", "MB:0=20", "L2:0=f", "MB:1=70")),
    ]
    assert [step.at for step in done][1:3] == ["/linux/intelRdt/l3CacheSchema", "/linux/intelRdt/memBwSchema"]
    assert [(step.args["path"], step.args["guard"] is done[0]) for step in undone] == [(f"{MOUNT}/web", True)]


def test_without_schemata_none_is_written() -> None:
    assert shown(planned(None)[0]) == [("Mkdirat", f"{MOUNT}/web", None)]


def test_a_clos_id_with_schemata_is_made_where_it_is_missing() -> None:
    done, _ = planned(None, clos_id="gold", schemata=("L3:0=f",))
    assert shown(done) == [("Mkdirat", f"{MOUNT}/gold", None), ("WriteFile", f"{MOUNT}/gold/schemata", "L3:0=f\n")]


@pytest.mark.parametrize("line", ["L3:0=7ff", "L3:1=07ff;0=7FF", "MB:1=100", "MB:0=100;1=100"])
def test_a_group_with_the_same_schemata_is_used_as_it_is(line: str) -> None:
    assert planned(NOW, clos_id="gold", schemata=(line,)) == ([], [])


@pytest.mark.parametrize("line", ["L3:0=7fe", "L3:2=7ff", "L2:0=f", "MB:0=90"])
def test_a_group_with_other_schemata_is_an_error(line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        planned(NOW, clos_id="gold", schemata=(line,))
    assert caught.value.faults == [("/linux/intelRdt/schemata/0", "the resctrl group gold has other schemata")]


def test_a_clos_id_alone_must_be_there() -> None:
    assert planned(NOW, clos_id="gold") == ([], [])
    with pytest.raises(ConfigError, match="there is no resctrl group gold"):
        planned(None, clos_id="gold")


def test_the_default_group() -> None:
    assert planned(NOW, clos_id="/") == ([], [])


def test_a_group_of_the_containers_name_is_not_taken_over() -> None:
    with pytest.raises(ConfigError, match="exists already"):
        planned(NOW)


def test_monitoring_is_a_group_below() -> None:
    done, undone = planned(NOW, clos_id="gold", enable_monitoring=True)
    assert shown(done) == [("Mkdirat", f"{MOUNT}/gold/mon_groups/web", None)]
    assert [step.args["path"] for step in undone] == [f"{MOUNT}/gold/mon_groups/web"]
    done, undone = planned(None, enable_monitoring=True)
    assert [step.args["path"] for step in undone] == [f"{MOUNT}/web/mon_groups/web", f"{MOUNT}/web"]


def test_no_resctrl_is_an_error() -> None:
    b = Builder()
    with pytest.raises(ConfigError, match="no resctrl file system is mounted"):
        plan_rdt_group(b, spec_of(), Facts(), "web")


@pytest.mark.parametrize("clos_id, place", [(None, "web"), ("gold", "gold")])
def test_the_process_joins_the_group_and_its_monitor(clos_id: str | None, place: str) -> None:
    b = Builder()
    plan_rdt_join(b, spec_of(clos_id=clos_id, enable_monitoring=True), MOUNT, "web")
    steps = b.plan().lanes[PARENT]
    assert [step.args["path"] for step in steps] == [f"{MOUNT}/{place}/tasks", f"{MOUNT}/{place}/mon_groups/web/tasks"]
    assert all(isinstance(step, WriteFile) and step.args["pid"] == PID_DATA for step in steps)


def test_delete_removes_what_is_the_containers_alone() -> None:
    def removed(**rdt: Any) -> list[object]:
        b = Builder()
        plan_rdt_delete(b, spec_of(**rdt), MOUNT, "web")
        steps = b.plan().lanes[PARENT]
        assert all(isinstance(step, Unlinkat) for step in steps)
        return [step.args["path"] for step in steps]

    assert removed() == [f"{MOUNT}/web"]
    assert removed(clos_id="gold", schemata=("L3:0=f",)) == []
    assert removed(clos_id="gold", enable_monitoring=True) == [f"{MOUNT}/gold/mon_groups/web"]
    assert removed(enable_monitoring=True) == [f"{MOUNT}/web/mon_groups/web", f"{MOUNT}/web"]
