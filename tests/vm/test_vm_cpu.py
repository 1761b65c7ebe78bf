"""Limits of processor time, by what a busy loop gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyrun.plan.cgroup.resources import cpu_weight
from tests.support.container.bundle import BundleMaker
from tests.support.container.runner import Runner, wait_for
from tests.support.vm.cgroup import BUSY, Cgroup, cpu_shares, resources

SECONDS = 2.0


def test_without_a_quota_a_loop_gets_a_processor(pyrun: Runner, bundle: BundleMaker) -> None:
    assert Cgroup(pyrun, pyrun.create_started(bundle(BUSY))).cpu_share(SECONDS, 0.6) >= 0.6


def test_quota(pyrun: Runner, bundle: BundleMaker) -> None:
    id = pyrun.create_started(bundle(BUSY, linux=resources(cpu={"quota": 20000, "period": 100000})))
    cgroup = Cgroup(pyrun, id)
    assert 0.1 <= cgroup.cpu_share(SECONDS, 0.1) < 0.3
    wait_for(lambda: cgroup.counter("cpu.stat", "nr_throttled") > 5, 20, "it to be throttled")


def test_update_of_the_quota(pyrun: Runner, bundle: BundleMaker) -> None:
    id = pyrun.create_started(bundle(BUSY, linux=resources(cpu={"quota": 10000, "period": 100000})))
    cgroup = Cgroup(pyrun, id)
    assert cgroup.cpu_share(SECONDS) < 0.2
    pyrun("update", "--cpu-quota", "50000", id).ok()
    assert 0.35 <= cgroup.cpu_share(SECONDS, 0.35) < 0.65
    pyrun("update", "--cpu-quota", "-1", id).ok()
    assert cgroup.cpu_share(SECONDS, 0.6) >= 0.6


@pytest.mark.parametrize(
    ("light", "heavy"),
    [({"cpu": {"shares": 128}}, {"cpu": {"shares": 4096}}), ({"unified": {"cpu.weight": "10"}}, {})],
    ids=["shares", "unified weight"],
)
def test_weight(
    pyrun: Runner, bundle: BundleMaker, light: dict[str, dict[str, object]], heavy: dict[str, dict[str, object]]
) -> None:
    """Two loops on one processor share it by weight."""
    shares = compete(pyrun, bundle, light, heavy)
    assert shares[1] > 3 * shares[0], shares
    assert 0.6 <= sum(shares) < 1.2


def test_idle(pyrun: Runner, bundle: BundleMaker) -> None:
    """An idle group gets what a busy one leaves, which is next to nothing; alone it gets everything."""
    idle, busy = compete(pyrun, bundle, {"cpu": {"idle": 1}}, {})
    assert idle < 0.1 < 0.5 < busy


def compete(pyrun: Runner, bundle: BundleMaker, *limits: dict[str, dict[str, object]]) -> list[float]:
    """The processor time that a loop under each of these limits gets, all of them on processor 1."""
    cgroups = []
    for limit in limits:
        cpu = {**limit.get("cpu", {}), "cpus": "1"}
        cgroups.append(Cgroup(pyrun, pyrun.create_started(bundle(BUSY, linux=resources(**{**limit, "cpu": cpu})))))
    return cpu_shares(cgroups, SECONDS, 0.6)


def test_update_of_weight_and_idle(pyrun: Runner, bundle: BundleMaker) -> None:
    pin = resources(cpu={"cpus": "1"})
    ids = [pyrun.create_started(bundle(BUSY, linux=pin)) for _ in range(2)]
    first, second = (Cgroup(pyrun, id) for id in ids)
    pyrun("update", "--cpu-share", "64", ids[0]).ok()
    assert first.cpu_share(SECONDS) < 0.25
    pyrun("update", "--cpu-share", "1024", ids[0]).ok()
    pyrun("update", "--cpu-idle", "1", ids[1]).ok()
    assert second.read("cpu.idle") == "1"
    assert second.cpu_share(SECONDS) < 0.1


def test_update_of_an_idle_cgroup(pyrun: Runner, bundle: BundleMaker) -> None:
    """The kernel takes no weight while it is idle, and gives it the default one when it is so no more."""
    id = pyrun.create_started(bundle(["sleep", "1000"], linux=resources(cpu={"idle": 1, "shares": 512})))
    cgroup = Cgroup(pyrun, id)
    pyrun("update", "--cpu-quota", "50000", id).ok()
    pyrun("update", "--cpu-share", "256", id).ok()
    assert (cgroup.read("cpu.idle"), cgroup.read("cpu.max")) == ("1", "50000 100000")
    pyrun("update", "--cpu-idle", "0", id).ok()
    weight = str(cpu_weight(256))
    assert (cgroup.read("cpu.idle"), cgroup.read("cpu.weight")) == ("0", weight)
    change = '{"cpu": {"idle": 1}, "unified": {"cpu.nonesuch": "1"}}'
    pyrun("update", "-r", "-", id, input=change).fails(1, "cpu.nonesuch")
    assert (cgroup.read("cpu.idle"), cgroup.read("cpu.weight")) == ("0", weight)


def test_cpuset(pyrun: Runner, bundle: BundleMaker) -> None:
    made = bundle(["sh", "-c", "nproc; grep allowed_list /proc/self/status"])
    made.update(linux=resources(cpu={"cpus": "1", "mems": "0"}))
    assert pyrun.run(made).ok().out.split() == ["1", "Cpus_allowed_list:", "1", "Mems_allowed_list:", "0"]


def test_update_of_the_cpuset(pyrun: Runner, bundle: BundleMaker) -> None:
    id = pyrun.create_started(bundle(["sleep", "1000"], linux=resources(cpu={"cpus": "0"})))
    status = Path(f"/proc/{pyrun.pid(id)}/status")
    assert "Cpus_allowed_list:\t0\n" in status.read_text()
    pyrun("update", "--cpuset-cpus", "0-1", id).ok()
    assert "Cpus_allowed_list:\t0-1\n" in status.read_text()
    assert pyrun.exec(id, "nproc").ok().out == "2\n"
    pyrun("update", "--cpuset-cpus", "7", id)
    assert "Cpus_allowed_list:\t0-1\n" in status.read_text()


def test_burst(pyrun: Runner, bundle: BundleMaker) -> None:
    """What a quiet period left of the quota is used in the next."""
    script = "while :; do i=0; while [ $i -lt 4000 ]; do i=$((i + 1)); done; sleep 0.3; done"
    cpu = {"quota": 20000, "period": 100000, "burst": 20000}
    id = pyrun.create_started(bundle(["sh", "-c", script], linux=resources(cpu=cpu)))
    cgroup = Cgroup(pyrun, id)
    wait_for(lambda: cgroup.counter("cpu.stat", "burst_usec") >= 20000, 20, "a burst")
    pyrun("update", "--cpu-burst", "0", id).ok()
    assert cgroup.read("cpu.max.burst") == "0"
    before = cgroup.counter("cpu.stat", "burst_usec")
    cgroup.cpu_share(SECONDS)
    assert cgroup.counter("cpu.stat", "burst_usec") < before + 10000
