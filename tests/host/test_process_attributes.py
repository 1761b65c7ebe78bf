"""What a program is born with: scheduler, I/O priority, personality, memory policy; and intelRdt, where it can't."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.container.bundle import BundleMaker
from tests.support.container.runner import Runner

SYS_IOPRIO_GET = {"x86_64": 252, "aarch64": 31}


def ioprio(pid: int) -> tuple[int, int]:
    """(class, level) of a process (ioprio_get(2))."""
    value = ctypes.CDLL(None, use_errno=True).syscall(SYS_IOPRIO_GET[os.uname().machine], 1, pid)
    return value >> 13, value & 0x1FFF


def test_scheduler_of_normal_priority(pyrun: Runner, bundle: BundleMaker) -> None:
    made = bundle(["sleep", "1000"], process={"scheduler": {"policy": "SCHED_BATCH", "nice": 7}})
    pid = pyrun.pid(pyrun.create_started(made))
    assert os.sched_getscheduler(pid) == os.SCHED_BATCH
    assert os.getpriority(os.PRIO_PROCESS, pid) == 7


def test_scheduler_of_real_time(pyrun: Runner, bundle: BundleMaker) -> None:
    scheduler = {"policy": "SCHED_FIFO", "priority": 3, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}
    pid = pyrun.pid(pyrun.create_started(bundle(["sleep", "1000"], process={"scheduler": scheduler})))
    assert os.sched_getscheduler(pid) == os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
    assert os.sched_getparam(pid).sched_priority == 3


def test_scheduler_with_a_deadline(pyrun: Runner, bundle: BundleMaker) -> None:
    scheduler = {"policy": "SCHED_DEADLINE", "runtime": 10_000_000, "deadline": 30_000_000, "period": 30_000_000}
    pid = pyrun.pid(pyrun.create_started(bundle(["sleep", "1000"], process={"scheduler": scheduler})))
    assert os.sched_getscheduler(pid) == 6


@pytest.mark.parametrize("name, number", [("RT", 1), ("BE", 2), ("IDLE", 3)])
def test_io_priority(pyrun: Runner, bundle: BundleMaker, name: str, number: int) -> None:
    wanted = {"class": f"IOPRIO_CLASS_{name}", "priority": 5}
    pid = pyrun.pid(pyrun.create_started(bundle(["sleep", "1000"], process={"ioPriority": wanted})))
    assert ioprio(pid) == (number, 5)


def test_exec_cpu_affinity_is_not_of_the_init(pyrun: Runner, bundle: BundleMaker) -> None:
    """config.md: "This setting is not applicable to the container's init process"."""
    affinity = {"initial": "0", "final": "0"}
    pid = pyrun.pid(pyrun.create_started(bundle(["sleep", "1000"], process={"execCPUAffinity": affinity})))
    assert os.sched_getaffinity(pid) == os.sched_getaffinity(0)


def test_cpu_affinity_is_not_the_callers(pyrun: Runner, bundle: BundleMaker) -> None:
    """Since Linux 6.2 a process takes it along into its cgroup; a service with CPUAffinity= would pin all."""
    cpus = os.sched_getaffinity(0)
    if len(cpus) < 2:
        pytest.skip("needs two CPUs")
    made = bundle(["sleep", "1000"])
    os.sched_setaffinity(0, {min(cpus)})
    try:
        id = pyrun.create_started(made)
        assert os.sched_getaffinity(pyrun.pid(id)) == cpus
        listed = pyrun.exec(id, "grep", "Cpus_allowed_list", "/proc/self/status").ok().out.split()[1]
        assert listed == Path(f"/proc/{pyrun.pid(id)}/status").read_text().partition("allowed_list:")[2].split()[0]
        assert os.sched_getaffinity(0) == {min(cpus)}
    finally:
        os.sched_setaffinity(0, cpus)


def test_what_stays_the_callers(pyrun: Runner, bundle: BundleMaker) -> None:
    """config.md: "If oomScoreAdj is not set, the runtime MUST NOT change the value". runc and crun leave it, the nice
    value and limits."""
    made = bundle(["sh", "-c", "cat /proc/self/oom_score_adj; ulimit -Sn; cut -d ' ' -f 19 /proc/$$/stat"])
    made.config["process"].pop("rlimits", None)
    made.save()
    shell = 'echo 321 > /proc/self/oom_score_adj; ulimit -Sn 99; exec nice -n 5 "$@"'
    argv = ["sh", "-c", shell, "sh", *pyrun.command("run", "--bundle", made.path, pyrun.new_id())]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    assert done.stdout.split() == ["321", "99", "5"]


def test_personality(pyrun: Runner, bundle: BundleMaker) -> None:
    made = bundle(["sh", "-c", "uname -m; cat /proc/self/personality"], linux={"personality": {"domain": "LINUX32"}})
    machine, persona = pyrun.run(made).ok().out.split()
    assert persona == "00000008"
    assert machine in ("i686", "armv8l")


def test_exec_has_the_containers_personality(pyrun: Runner, bundle: BundleMaker) -> None:
    id = pyrun.create_started(bundle(["sleep", "1000"], linux={"personality": {"domain": "LINUX32"}}))
    assert pyrun.exec(id, "cat", "/proc/self/personality").ok().out == "00000008\n"


POLICIES = [
    ({"mode": "MPOL_BIND", "nodes": "0"}, "bind:0"),
    ({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}, "bind=static:0"),
    ({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES"]}, "interleave=relative:0"),
    ({"mode": "MPOL_PREFERRED", "nodes": "0"}, "prefer:0"),
    ({"mode": "MPOL_PREFERRED_MANY", "nodes": "0"}, "prefer (many):0"),
    ({"mode": "MPOL_LOCAL"}, "local"),
    ({"mode": "MPOL_DEFAULT"}, "default"),
]


@pytest.mark.skipif(not Path("/proc/self/numa_maps").exists(), reason="needs a kernel with CONFIG_NUMA")
@pytest.mark.parametrize("policy, shown", POLICIES, ids=[shown for _, shown in POLICIES])
def test_memory_policy(pyrun: Runner, bundle: BundleMaker, policy: dict[str, Any], shown: str) -> None:
    id = pyrun.create_started(bundle(["sleep", "1000"], linux={"memoryPolicy": policy}))
    lines = Path(f"/proc/{pyrun.pid(id)}/numa_maps").read_text().splitlines()
    assert any(f" {shown} " in line and "[heap]" in line or "stack" in line and shown in line for line in lines), lines
    assert shown in pyrun.exec(id, "sh", "-c", "cat /proc/self/numa_maps").ok().out


@pytest.mark.skipif(not Path("/proc/self/numa_maps").exists(), reason="needs a kernel with CONFIG_NUMA")
def test_memory_policy_of_a_node_that_is_not_there(pyrun: Runner, bundle: BundleMaker) -> None:
    policy = {"mode": "MPOL_BIND", "nodes": "63"}
    pyrun.run(bundle(linux={"memoryPolicy": policy})).fails(1, "/linux/memoryPolicy", "EINVAL")


@pytest.mark.parametrize("nodes", ["x", "1-", "3-1", "99999", "-1"])
def test_memory_policy_with_a_bad_list(pyrun: Runner, bundle: BundleMaker, nodes: str) -> None:
    policy = {"mode": "MPOL_BIND", "nodes": nodes}
    pyrun.run(bundle(linux={"memoryPolicy": policy})).fails(1, "/linux/memoryPolicy/nodes")


@pytest.mark.skipif(" resctrl " in Path("/proc/self/mounts").read_text(), reason="needs a host without resctrl")
@pytest.mark.parametrize("rdt", [{}, {"closID": "group"}, {"l3CacheSchema": "L3:0=f"}, {"enableMonitoring": True}])
def test_intel_rdt_without_resctrl(pyrun: Runner, bundle: BundleMaker, rdt: dict[str, Any]) -> None:
    done = pyrun.run(bundle(linux={"intelRdt": rdt}))
    done.fails(1, "/linux/intelRdt", "no resctrl file system is mounted", "mount -t resctrl")


@pytest.mark.skipif(" resctrl " in Path("/proc/self/mounts").read_text(), reason="needs a host without resctrl")
def test_update_of_schemata_without_resctrl(pyrun: Runner, bundle: BundleMaker) -> None:
    id = pyrun.create_started(bundle(["sleep", "1000"]))
    pyrun("update", "--l3-cache-schema", "L3:0=f", id).fails(1, "no resctrl file system is mounted")
    pyrun("update", "--mem-bw-schema", "MB:0=20", id).fails(1, "no resctrl file system is mounted")
