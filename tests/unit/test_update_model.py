"""update against a model of the cgroup's files: whatever was in force and whatever is changed, the files say what a
create with the merged limits makes of them, and a failure at any write leaves what was there.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example
from hypothesis import strategies as st

from pyrun.errors import ConfigError
from pyrun.oci.load import load_resources
from pyrun.plan.cgroup.resources import CONTROLLERS, Write, merge_resources, plan_resources
from pyrun.plan.model import steps as s
from pyrun.plan.update import plan_update
from tests.support.container.cgroup_model import CgroupModel
from tests.support.properties import given

MIB = 1 << 20
BYTES = st.sampled_from([-1, 0, 32 * MIB, 50 * MIB, 92 * MIB])
RATES = st.sampled_from([0, 1000, 2000])
SHARES = st.sampled_from([0, 2, 512, 1024, 262144])
TIMES = st.sampled_from([0, 500, 5000, 20000])  # 500 is less than the kernel takes


def devices(**value: Any) -> Any:
    device = st.fixed_dictionaries({"major": st.just(8), "minor": st.sampled_from([0, 16]), **value})
    return st.lists(device, max_size=2, unique_by=lambda device: device["minor"])


def some(**members: Any) -> Any:
    return st.fixed_dictionaries({}, optional=members)


RESOURCES = some(
    memory=some(limit=BYTES, swap=BYTES, reservation=BYTES),
    cpu=some(
        shares=SHARES,
        idle=st.sampled_from([0, 1]),
        quota=st.one_of(TIMES, st.just(-1)),
        period=TIMES,
        burst=TIMES,
        cpus=st.sampled_from(["0", "0-1"]),
        mems=st.just("0"),
    ),
    pids=st.fixed_dictionaries({"limit": st.sampled_from([-1, 0, 7])}),
    blockIO=some(
        weight=st.sampled_from([0, 10, 500]),
        weightDevice=devices(weight=st.sampled_from([0, 10, 900])),
        throttleReadBpsDevice=devices(rate=RATES),
        throttleWriteIOPSDevice=devices(rate=RATES),
    ),
    rdma=some(
        mlx5_0=some(hcaHandles=st.just(3), hcaObjects=st.just(9)).filter(bool),
        mlx5_1=some(hcaHandles=st.just(0), hcaObjects=st.just(5)).filter(bool),
    ),
    hugepageLimits=st.lists(
        st.fixed_dictionaries({"pageSize": st.just("2MB"), "limit": st.sampled_from([0, 4 * MIB])}), max_size=1
    ),
)


def writes(resources: dict[str, Any]) -> tuple[Write, ...] | None:
    """None where they are refused before anything is written."""
    try:
        loaded = load_resources(json.dumps(resources).encode())
        return plan_resources(loaded, controllers=frozenset(CONTROLLERS)).writes
    except ConfigError:
        return None


def lanes(model: CgroupModel, made: tuple[Write, ...]) -> tuple[list[s.Step], list[s.Step]]:
    plan = plan_update(made, (), mount="/sys/fs/cgroup", cgroup="/sys/fs/cgroup/c", now=model.read())
    return plan.lanes[s.PARENT], plan.lanes[s.UNDO]


def created(resources: dict[str, Any], **kernel: bool) -> CgroupModel | None:
    """The cgroup of a create; None where it fails."""
    model = CgroupModel(**kernel)
    made = writes(resources)
    if made is None or not model.run(lanes(model, made)[0]):
        return None
    return model


IDLE = {"cpu": {"idle": 1, "shares": 512}}
SWAP = {"memory": {"limit": 50 * MIB, "swap": 92 * MIB}}


@given(RESOURCES, st.lists(RESOURCES, min_size=1, max_size=3), st.booleans(), st.booleans(), max_examples=400)
@example({"memory": {"limit": 32 * MIB}}, [SWAP, {"memory": {"limit": -1}}], False, True)
@example(IDLE, [{"cpu": {"quota": 5000}}, {"cpu": {"idle": 0}}], False, True)
@example(IDLE, [{"cpu": {"shares": 1024}}, {"memory": {"limit": 50 * MIB}}], False, True)
@example({"cpu": {"quota": 5000, "burst": 5000}}, [{"cpu": {"quota": 20000, "burst": 20000}}], False, True)
@example({"rdma": {"mlx5_1": {"hcaHandles": 0}}}, [{"rdma": {"mlx5_1": {"hcaObjects": 5}}}], False, True)
def test_an_update_is_a_create_with_the_merged_limits(
    current: dict[str, Any], changes: list[dict[str, Any]], bfq: bool, swap: bool
) -> None:
    model = created(current, bfq=bfq, swap=swap)
    for change in changes:
        if model is None:
            return
        applied, in_force = merge_resources(current, change)
        made, fresh = writes(applied), created(in_force, bfq=bfq, swap=swap)
        if made is None:
            assert fresh is None
            return
        before = model.state()
        done, undo = lanes(model, made)
        if not model.run(done):
            assert fresh is None
            model.run(undo)
            assert model.state() == before
            return
        assert fresh is not None and model.state() == fresh.state()
        current = in_force


@given(RESOURCES, RESOURCES, st.integers(0, 12), st.booleans(), max_examples=300)
@example({"cpu": {"shares": 512}}, {"cpu": {"idle": 1, "cpus": "0"}}, 1, False)
@example(IDLE, {"cpu": {"idle": 0, "cpus": "0"}}, 2, False)
def test_an_update_that_fails_anywhere_changes_nothing(
    current: dict[str, Any], change: dict[str, Any], fail: int, bfq: bool
) -> None:
    model = created(current, bfq=bfq)
    applied, _ = merge_resources(current, change)
    made = writes(applied)
    if model is None or made is None:
        return
    before = model.state()
    done, undo = lanes(model, made)
    if not model.run(done, fail=fail):
        model.run(undo)
        assert model.state() == before


def test_unlimited_memory_takes_the_limit_of_swap_away() -> None:
    """That one was of memory and swap together. One in the same change stands, and means swap alone (runc's rule)."""
    for change, swap in (({"limit": -1}, "max"), ({"limit": -1, "swap": 92 * MIB}, str(92 * MIB))):
        model = created({"memory": {"limit": 32 * MIB}})
        in_force: dict[str, Any] = {"memory": {"limit": 32 * MIB}}
        assert model is not None
        for each in (SWAP, {"memory": change}):
            applied, in_force = merge_resources(in_force, each)
            assert model.run(lanes(model, writes(applied) or ())[0])
        assert (model.files["memory.max"], model.files["memory.swap.max"]) == ("max", swap)


def test_a_burst_above_the_quota_is_named_before_anything_is_written() -> None:
    applied, _ = merge_resources({"cpu": {"quota": 20000, "burst": 20000}}, {"cpu": {"quota": 5000}})
    with pytest.raises(ConfigError, match=r"burst: must not be above the quota 5000, and is 20000"):
        plan_resources(load_resources(json.dumps(applied).encode()), controllers=frozenset(CONTROLLERS))
