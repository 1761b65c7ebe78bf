"""linux.resources as writes to cgroup v2 files: the conversions, the order, what is refused, and update's merging."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st

from pyrun.errors import ConfigError, PyrunError
from pyrun.oci import model
from pyrun.plan.cgroup import resources as plan
from pyrun.plan.cgroup.resources import ENOENT, plan_resources
from tests.support.properties import given

ALL = frozenset(plan.CONTROLLERS)


def writes(controllers: frozenset[str] = ALL, **members: Any) -> list[str]:
    return [repr(write) for write in plan_resources(model.Resources(**members), controllers=controllers).writes]


def faults(controllers: frozenset[str] = ALL, **members: Any) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        plan_resources(model.Resources(**members), controllers=controllers)
    return dict(caught.value.faults)


def test_nothing_asked_nothing_written() -> None:
    for resources in (None, model.Resources(), model.Resources(memory=model.Memory(), cpu=model.Cpu(cpus=""))):
        made = plan_resources(resources, controllers=frozenset())
        assert (made.writes, made.controllers, made.check_memory) == ((), (), None)


# --- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "swap", "expected"),
    [
        (None, None, []),
        (0, 0, []),
        (4096, None, ["memory.max = 4096"]),
        (4096, 0, ["memory.max = 4096"]),
        (4096, 4096, ["memory.swap.max = 0", "memory.max = 4096"]),
        (4096, 10000, ["memory.swap.max = 5904", "memory.max = 4096"]),
        (4096, -1, ["memory.swap.max = max", "memory.max = 4096"]),
        (-1, None, ["memory.swap.max = max", "memory.max = max"]),
        (-1, 300, ["memory.swap.max = 300", "memory.max = max"]),
        (-1, -1, ["memory.swap.max = max", "memory.max = max"]),
        (None, -1, ["memory.swap.max = max"]),
    ],
)
def test_memory_and_swap(limit: int | None, swap: int | None, expected: list[str]) -> None:
    assert writes(memory=model.Memory(limit=limit, swap=swap)) == expected


def test_reservation_is_memory_low() -> None:
    assert writes(memory=model.Memory(reservation=-1)) == ["memory.low = max"]
    assert writes(memory=model.Memory(limit=1 << 30, reservation=1 << 29)) == [
        "memory.max = 1073741824",
        "memory.low = 536870912",
    ]


@pytest.mark.parametrize(
    ("memory", "place"),
    [
        (model.Memory(swap=4096), "swap"),
        (model.Memory(limit=4096, swap=4095), "swap"),
        (model.Memory(limit=-2), "limit"),
        (model.Memory(swap=-2), "swap"),
        (model.Memory(reservation=-2), "reservation"),
        (model.Memory(kernel=1), "kernel"),
        (model.Memory(kernel_tcp=1), "kernelTCP"),
        (model.Memory(swappiness=60), "swappiness"),
        (model.Memory(disable_oom_killer=True), "disableOOMKiller"),
    ],
)
def test_memory_that_can_not_be(memory: model.Memory, place: str) -> None:
    assert f"/linux/resources/memory/{place}" in faults(memory=memory)


def test_no_limit_of_kernel_memory_is_what_is_so_anyway() -> None:
    assert writes(memory=model.Memory(kernel=-1, kernel_tcp=0, use_hierarchy=True)) == []


def test_a_kernel_without_swap_has_no_file_to_set_free() -> None:
    for swap, tolerated in ((4096, (ENOENT,)), (-1, (ENOENT,)), (8192, ())):
        made = plan_resources(model.Resources(memory=model.Memory(limit=4096, swap=swap)), controllers=ALL)
        assert made.writes[0].tolerate == tolerated, swap


def test_check_before_update() -> None:
    memory = model.Memory(limit=4096, swap=8192, check_before_update=True)
    check = plan_resources(model.Resources(memory=memory), controllers=ALL).check_memory
    assert check == (4096, 8192)
    plan.check_memory_usage(check, 4095)
    with pytest.raises(PyrunError, match=r"rejecting memory limit 4096 <= usage 4096"):
        plan.check_memory_usage(check, 4096)
    with pytest.raises(PyrunError, match=r"rejecting memory\+swap limit 8192 <= usage 9000"):
        plan.check_memory_usage(check, 9000)
    plan.check_memory_usage((-1, 0), 1 << 40)
    assert plan_resources(model.Resources(memory=model.Memory(limit=1)), controllers=ALL).check_memory is None


# --- cpu --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shares", "weight"),
    [(0, 0), (1, 1), (2, 1), (3, 2), (512, 59), (1024, 100), (2048, 174), (262143, 10000), (1 << 60, 10000)],
)
def test_shares_become_weight(shares: int, weight: int) -> None:
    assert plan.cpu_weight(shares) == weight


@given(st.integers(1, 300_000))
def test_weight_grows_with_shares(shares: int) -> None:
    assert 1 <= plan.cpu_weight(shares) <= plan.cpu_weight(shares + 1) <= 10000


@pytest.mark.parametrize(
    ("cpu", "expected"),
    [
        (model.Cpu(shares=1024), ["cpu.weight = 100"]),
        (model.Cpu(shares=0), []),
        (model.Cpu(quota=50000), ["cpu.max = 50000 100000"]),
        (model.Cpu(quota=50000, period=20000), ["cpu.max = 50000 20000"]),
        (model.Cpu(quota=-1), ["cpu.max = max 100000"]),
        (model.Cpu(period=20000), ["cpu.max = max 20000"]),
        (model.Cpu(burst=5), ["cpu.max.burst = 5"]),
        (model.Cpu(quota=9, burst=9), ["cpu.max.burst = 9", "cpu.max = 9 100000", "cpu.max.burst = 9"]),
        (model.Cpu(idle=1, shares=1024), ["cpu.idle = 1"]),
        (model.Cpu(idle=0, shares=1024), ["cpu.idle = 0", "cpu.weight = 100"]),
        (model.Cpu(cpus="0-3,7", mems="0"), ["cpuset.cpus = 0-3,7", "cpuset.mems = 0"]),
        (model.Cpu(realtime_period=0, realtime_runtime=0), []),
    ],
)
def test_cpu(cpu: model.Cpu, expected: list[str]) -> None:
    assert writes(cpu=cpu) == expected


def test_only_the_first_of_two_burst_writes_may_fail() -> None:
    made = plan_resources(model.Resources(cpu=model.Cpu(quota=9, burst=9)), controllers=ALL)
    assert [write.tolerate for write in made.writes] == [(plan.EINVAL,), (), ()]
    assert plan_resources(model.Resources(cpu=model.Cpu(burst=9)), controllers=ALL).writes[0].tolerate == ()


def test_cpu_that_can_not_be() -> None:
    assert set(faults(cpu=model.Cpu(realtime_runtime=1, realtime_period=1, quota=5, burst=6))) == {
        "/linux/resources/cpu/realtimeRuntime",
        "/linux/resources/cpu/realtimePeriod",
        "/linux/resources/cpu/burst",
    }


# --- the other sections -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "value"), [(-1, "max"), (0, "1"), (1, "1"), (32771, "32771")])
def test_pids_are_limited_late(limit: int, value: str) -> None:
    (write,) = plan_resources(model.Resources(pids=model.Pids(limit=limit)), controllers=ALL).writes
    assert (write.file, write.value, write.late) == ("pids.max", value, True)


def test_no_limit_needs_no_controller() -> None:
    unlimited = model.Resources(pids=model.Pids(limit=-1), memory=model.Memory(limit=-1, swap=-1))
    assert plan_resources(unlimited, controllers=frozenset()).writes == ()
    assert [write.value for write in plan_resources(unlimited, controllers=ALL).writes].count("max") == 3


def test_block_io() -> None:
    throttle = model.ThrottleDevice
    io = model.BlockIO(
        weight=500,
        weight_device=(model.WeightDevice(major=8, minor=16, weight=10),),
        throttle_read_bps_device=(throttle(major=8, minor=0, rate=600), throttle(major=8, minor=16, rate=0)),
        throttle_write_bps_device=(throttle(major=8, minor=0, rate=(1 << 64) - 1),),
        throttle_read_iops_device=(throttle(major=8, minor=0, rate=3),),
        throttle_write_iops_device=(throttle(major=8, minor=0, rate=4),),
    )
    assert writes(block_io=io) == [
        "io.bfq.weight = 500",
        "io.bfq.weight = 8:16 10",
        "io.max = 8:0 rbps=600",
        "io.max = 8:16 rbps=max",
        "io.max = 8:0 wbps=18446744073709551615",
        "io.max = 8:0 riops=3",
        "io.max = 8:0 wiops=4",
    ]


def test_without_bfq_the_weight_goes_to_io_weight() -> None:
    io = model.BlockIO(weight=500, weight_device=(model.WeightDevice(major=8, minor=16, weight=1000),))
    made = plan_resources(model.Resources(block_io=io), controllers=ALL).writes
    assert [(write.tolerate, write.otherwise) for write in made] == [
        ((ENOENT,), ("io.weight", "4950")),
        ((ENOENT,), ("io.weight", "8:16 10000")),
    ]
    assert plan.io_weight(10) == 1


def test_block_io_that_can_not_be() -> None:
    device = model.WeightDevice(major=8, minor=0, weight=1001, leaf_weight=5)
    assert set(faults(block_io=model.BlockIO(weight=9, leaf_weight=10, weight_device=(device,)))) == {
        "/linux/resources/blockIO/weight",
        "/linux/resources/blockIO/leafWeight",
        "/linux/resources/blockIO/weightDevice/0/weight",
        "/linux/resources/blockIO/weightDevice/0/leafWeight",
    }


def test_hugepages_limit_use_and_reservation() -> None:
    limits = (model.HugepageLimit(page_size="2MB", limit=209715200), model.HugepageLimit(page_size="64KB", limit=0))
    made = plan_resources(model.Resources(hugepage_limits=limits), controllers=ALL).writes
    assert [(repr(write), write.tolerate) for write in made] == [
        ("hugetlb.2MB.max = 209715200", ()),
        ("hugetlb.2MB.rsvd.max = 209715200", (ENOENT,)),
        ("hugetlb.64KB.max = 0", ()),
        ("hugetlb.64KB.rsvd.max = 0", (ENOENT,)),
    ]


@pytest.mark.parametrize("size", ["", "2M", "MB", "2mb", "../2MB", "1/../2MB", "2MB\n", "\u0662MB"])
def test_a_page_size_is_a_size(size: str) -> None:
    limits = (model.HugepageLimit(page_size=size, limit=1),)
    assert set(faults(hugepage_limits=limits)) == {"/linux/resources/hugepageLimits/0/pageSize"}


def test_rdma() -> None:
    rdma = {
        "mlx5_1": model.Rdma(hca_handles=3, hca_objects=10000),
        "mlx4_0": model.Rdma(hca_objects=1000),
        "rxe3": model.Rdma(hca_handles=0),
    }
    assert writes(rdma=rdma) == [
        "rdma.max = mlx5_1 hca_handle=3 hca_object=10000",
        "rdma.max = mlx4_0 hca_object=1000",
        "rdma.max = rxe3 hca_handle=0",
    ]
    assert set(faults(rdma={"a": model.Rdma(), "b c": model.Rdma(hca_handles=1)})) == {
        "/linux/resources/rdma/a",
        "/linux/resources/rdma/b c",
    }


def test_network_classes_are_refused() -> None:
    assert writes(network=model.Network(class_id=0)) == []
    assert "/linux/resources/network/classID" in faults(network=model.Network(class_id=1048577))
    priorities = (model.InterfacePriority(name="eth0", priority=500),)
    assert "/linux/resources/network/priorities" in faults(network=model.Network(priorities=priorities))


def test_unified_is_written_as_it_stands_and_last() -> None:
    unified = {"io.max": "259:0 rbps=2097152\n253:0 wiops=120\n", "memory.max": "1", "cgroup.max.depth": "0"}
    unified["cpu.x"] = ""
    assert writes(memory=model.Memory(limit=4096), unified=unified) == [
        "memory.max = 4096",
        "io.max = 259:0 rbps=2097152",
        "io.max = 253:0 wiops=120",
        "memory.max = 1",
        "cgroup.max.depth = 0",
        "cpu.x = ",
    ]


@pytest.mark.parametrize(
    "name", ["memory", "", ".", "..", ".max", "memory.", "../memory.max", "memory./max", "nosuch.max", "memory.max/"]
)
def test_unified_names_are_files_of_controllers(name: str) -> None:
    place = name.replace("/", "~1")
    assert set(faults(unified={name: "1"})) == {f"/linux/resources/unified/{place}"}


def test_unified_alone_for_a_systemd_cgroup() -> None:
    resources = model.Resources(memory=model.Memory(limit=4096, check_before_update=True), unified={"memory.high": "1"})
    made = plan_resources(resources, controllers=ALL, unified_only=True)
    assert [repr(write) for write in made.writes] == ["memory.high = 1"]
    assert made.check_memory is None


# --- controllers ------------------------------------------------------------------------------------------------------


def test_needed_controllers_in_order() -> None:
    resources = model.Resources(
        cpu=model.Cpu(shares=2, cpus="0"),
        pids=model.Pids(limit=5),
        memory=model.Memory(limit=4096),
        unified={"memory.high": "1", "misc.max": "1", "cgroup.max.depth": "1"},
    )
    made = plan_resources(resources, controllers=ALL)
    assert made.controllers == ("pids", "memory", "cpu", "cpuset", "misc")


def test_a_missing_controller_is_named_with_its_place() -> None:
    with pytest.raises(ConfigError) as caught:
        plan_resources(
            model.Resources(memory=model.Memory(limit=4096, reservation=1), cpu=model.Cpu(cpus="0")),
            controllers=frozenset({"hugetlb"}),
        )
    text = "the {} controller is not available in this cgroup (available: hugetlb)"
    assert caught.value.faults == [
        ("/linux/resources/memory/limit", text.format("memory")),
        ("/linux/resources/cpu/cpus", text.format("cpuset")),
    ]
    assert "(available: none)" in faults(frozenset(), pids=model.Pids(limit=1))["/linux/resources/pids/limit"]


def test_the_place_of_update() -> None:
    with pytest.raises(ConfigError) as caught:
        plan_resources(
            model.Resources(memory=model.Memory(limit=1)), controllers=frozenset({"io"}), base="", file="resources"
        )
    assert str(caught.value).startswith("resources /memory/limit: the memory controller")


# --- update -----------------------------------------------------------------------------------------------------------


def test_update_applies_what_depends_on_the_change_and_keeps_the_rest() -> None:
    current = {
        "memory": {"limit": 4096, "reservation": 1},
        "cpu": {"shares": 512, "quota": 5000, "period": 10000, "cpus": "0", "burst": 7},
        "pids": {"limit": 9},
        "rdma": {"a": {"hcaHandles": 1}},
    }
    applied, kept = plan.merge_resources(current, {"memory": {"swap": 8192}, "cpu": {"quota": 6000}})
    assert applied == {
        "memory": {"limit": 4096, "reservation": 1, "swap": 8192},
        "cpu": {"quota": 6000, "period": 10000, "burst": 7},
    }
    assert kept == {
        "memory": {"limit": 4096, "reservation": 1, "swap": 8192},
        "cpu": {"shares": 512, "quota": 6000, "period": 10000, "cpus": "0", "burst": 7},
        "pids": {"limit": 9},
        "rdma": {"a": {"hcaHandles": 1}},
    }


def test_update_leaves_quota_and_period_alone_when_neither_is_given() -> None:
    applied, _ = plan.merge_resources({"cpu": {"quota": 5, "period": 6}}, {"pids": {"limit": 3}, "devices": [1]})
    assert applied == {"pids": {"limit": 3}}


def test_update_of_huge_pages_and_rdma() -> None:
    small, large = {"pageSize": "2MB", "limit": 1}, {"pageSize": "1GB", "limit": 2}
    current = {"hugepageLimits": [small, large], "rdma": {"a": {"hcaHandles": 1}}}
    change = {"hugepageLimits": [{"pageSize": "2MB", "limit": 3}], "rdma": {"b": {"hcaObjects": 2}}}
    applied, kept = plan.merge_resources(current, change)
    assert applied == change
    assert kept["hugepageLimits"] == [{"pageSize": "2MB", "limit": 3}, large]
    assert kept["rdma"] == {"a": {"hcaHandles": 1}, "b": {"hcaObjects": 2}}


def test_update_does_not_weigh_an_idle_cgroup() -> None:
    applied, _ = plan.merge_resources({"cpu": {"shares": 512}}, {"cpu": {"idle": 1}})
    assert applied == {"cpu": {"idle": 1}}


def test_update_of_a_throttled_device() -> None:
    def at(minor: int, rate: int) -> dict[str, int]:
        return {"major": 8, "minor": minor, "rate": rate}

    current = {"blockIO": {"throttleReadBpsDevice": [at(0, 1), at(1, 2)], "weight": 10}}
    change = {"blockIO": {"throttleReadBpsDevice": [at(1, 9), at(2, 3)], "throttleWriteBpsDevice": [at(0, 4)]}}
    applied, _ = plan.merge_resources(current, change)
    assert applied["blockIO"] == {
        "throttleReadBpsDevice": [at(0, 1), at(1, 9), at(2, 3)],
        "throttleWriteBpsDevice": [at(0, 4)],
        "weight": 10,
    }
