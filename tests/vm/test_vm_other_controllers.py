"""hugetlb, rdma, misc and devices."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.container.bundle import Bundle, BundleMaker
from tests.support.container.runner import Runner
from tests.support.vm.cgroup import MIB, Cgroup, resources

PAGES = Path("/proc/sys/vm/nr_hugepages")


@pytest.fixture
def huge_pages() -> Iterator[None]:
    """Eight huge pages of 2 MiB."""
    PAGES.write_text("8")
    assert int(PAGES.read_text()) == 8
    yield
    PAGES.write_text("0")


def with_huge_pages(bundle: BundleMaker, **limits: object) -> Bundle:
    made = bundle(["sleep", "1000"], linux=resources(**limits))
    return made.add_mount("/huge", "hugetlbfs", "pagesize=2M", type="hugetlbfs")


def take(pyrun: Runner, id: str, mib: int) -> int:
    """Takes huge pages and gives them back; the status of it."""
    return pyrun.exec(id, "sh", "-c", f"fallocate -l {mib}M /huge/file; rc=$?; rm -f /huge/file; exit $rc").rc


def test_huge_pages(pyrun: Runner, bundle: BundleMaker, huge_pages: None) -> None:
    id = pyrun.create_started(with_huge_pages(bundle, hugepageLimits=[{"pageSize": "2MB", "limit": 4 * MIB}]))
    assert take(pyrun, id, 4) == 0
    assert take(pyrun, id, 6) != 0
    assert Cgroup(pyrun, id).counter("hugetlb.2MB.events", "max") > 0
    change = '{"hugepageLimits": [{"pageSize": "2MB", "limit": 8388608}]}'
    pyrun("update", "-r", "-", id, input=change).ok()
    assert take(pyrun, id, 6) == 0


def test_huge_pages_without_a_limit(pyrun: Runner, bundle: BundleMaker, huge_pages: None) -> None:
    assert take(pyrun, pyrun.create_started(with_huge_pages(bundle)), 12) == 0


def test_a_page_size_that_is_not_there(pyrun: Runner, bundle: BundleMaker) -> None:
    made = bundle(["true"], linux=resources(hugepageLimits=[{"pageSize": "3MB", "limit": 4 * MIB}]))
    pyrun.run(made).fails(1, "/linux/resources/hugepageLimits/0", "hugetlb.3MB.max")


@pytest.mark.parametrize("controller", ["rdma", "misc"])
def test_unified_reaches_every_controller(pyrun: Runner, bundle: BundleMaker, controller: str) -> None:
    """There is no such device here to limit; that the kernel says so shows that controller and file are there."""
    made = bundle(["true"], linux=resources(unified={f"{controller}.max": "nothing 1"}))
    pyrun.run(made).fails(1, f"/linux/resources/unified/{controller}.max", "EINVAL")
    assert controller in Path("/sys/fs/cgroup/cgroup.subtree_control").read_text().split()


def test_unified_overrides(pyrun: Runner, bundle: BundleMaker) -> None:
    made = bundle(["sleep", "1000"])
    made.update(linux=resources(memory={"limit": 64 * MIB}, unified={"memory.max": str(32 * MIB), "pids.max": "9"}))
    cgroup = Cgroup(pyrun, pyrun.create_started(made))
    assert (cgroup.number("memory.max"), cgroup.number("pids.max")) == (32 * MIB, 9)


@pytest.mark.parametrize(("access", "reads", "writes"), [("r", True, False), ("rw", True, True), ("m", False, False)])
def test_devices(pyrun: Runner, bundle: BundleMaker, access: str, reads: bool, writes: bool) -> None:
    rdev = os.stat("/dev/scratch").st_rdev
    number = {"major": os.major(rdev), "minor": os.minor(rdev)}
    rules = [{"allow": False, "access": "rwm"}, {"allow": True, "type": "b", **number, "access": access}]
    device = {"path": "/dev/disk", "type": "b", **number}
    script = "for way in if=/dev/disk of=/dev/disk; do dd $way count=1 </dev/zero >/dev/null 2>&1; echo $?; done"
    made = bundle(["sh", "-c", script], linux={"devices": [device], **resources(devices=rules)})
    codes = pyrun.run(made).ok().out.split()
    assert [code == "0" for code in codes] == [reads, writes]
