"""The plan of a sandbox as data: what is made, in which order, and that undo answers to each."""

from __future__ import annotations

import pytest

from pyrun.facts import Facts
from pyrun.oci.model import IdMapping
from pyrun.plan.model.steps import (
    PARENT,
    STAGE1,
    UNDO,
    CreateFile,
    MakeTarget,
    Mkdirat,
    MountSetattr,
    MoveMount,
    Reap,
    Setresuid,
    Umount,
    Unlinkat,
    Unshare,
    WriteFile,
)
from pyrun.plan.sandbox import MS_UNBINDABLE, SandboxRequest, plan_end, plan_sandbox

DIRECTORY = "/run/pyrun-cri/pods/p1"
MAPS = (IdMapping(container_id=0, host_id=100000, size=65536),)
NEWUSER, NEWNET = 0x10000000, 0x40000000


def request(**words: object) -> SandboxRequest:
    base = {"id": "p1", "directory": DIRECTORY, "cgroup": "/sys/fs/cgroup/pyrun/p1/pod", "hostname": "web"}
    return SandboxRequest(**{**base, "files": {"hostname": "web\n"}, **words})


def test_the_record_comes_before_all_that_it_speaks_of() -> None:
    lane = plan_sandbox(request(), Facts()).lanes[PARENT]
    names = [type(step).__name__ for step in lane]
    first = next(step for step in lane if isinstance(step, CreateFile))
    assert first.args["name"] == "sandbox.json"
    assert lane.index(first) == 2
    assert names.index("MoveMount") > 2 and names.index("Clone3") > 2


def test_pins_lie_below_a_mount_that_no_bind_takes_along() -> None:
    lane = plan_sandbox(request(), Facts()).lanes[PARENT]
    attributes = next(step for step in lane if isinstance(step, MountSetattr))
    moves = [step for step in lane if isinstance(step, MoveMount)]
    assert attributes.args["propagation"] == MS_UNBINDABLE
    assert lane.index(moves[0]) < lane.index(attributes) < lane.index(moves[1])
    assert [step.args["dst"] for step in moves] == ["ns", "shm", "net", "ipc", "uts"]
    assert isinstance(lane[-1], Reap)


def test_namespaces_are_made_in_the_user_namespace_that_owns_them() -> None:
    plan = plan_sandbox(request(namespaces=("user", "net"), uid_mappings=MAPS, gid_mappings=MAPS), Facts())
    child = plan.lanes[STAGE1]
    unshared = [step.args["flags"] for step in child if isinstance(step, Unshare)]
    assert unshared == [NEWUSER, NEWNET]
    root = next(step for step in child if isinstance(step, Setresuid))
    assert child.index(root) < max(i for i, step in enumerate(child) if isinstance(step, Unshare))
    maps = [step for step in plan.lanes[PARENT] if isinstance(step, WriteFile) and "_map" in str(step.args["path"])]
    assert [step.args["data"] for step in maps] == ["0 100000 65536\n"] * 2
    assert {"uid": "100000"}.items() <= {
        s.args["key"]: s.args["value"] for s in plan.lanes[PARENT] if "key" in s.args and "value" in s.args
    }.items()


def test_a_pod_of_the_nodes_namespaces_makes_no_child() -> None:
    plan = plan_sandbox(request(namespaces=(), shm_size=0), Facts())
    assert not plan.lanes[STAGE1]
    assert [s.args["dst"] for s in plan.lanes[PARENT] if isinstance(s, MoveMount)] == ["ns"]


def test_sysctls_are_one_write_below_the_hosts_proc() -> None:
    plan = plan_sandbox(request(sysctls={"net.ipv4.conf.eth0/1.forwarding": "1+2\n"}), Facts())
    step = next(s for s in plan.lanes[STAGE1] if isinstance(s, WriteFile))
    assert step.args["path"] == "sys/net/ipv4/conf/eth0.1/forwarding"
    assert step.args["data"] == "1+2\n"


@pytest.mark.parametrize("kinds", [(), ("net", "ipc", "uts"), ("user", "net", "ipc", "uts")], ids=len)
def test_all_that_is_made_is_undone(kinds: tuple[str, ...]) -> None:
    maps = MAPS if "user" in kinds else ()
    plan = plan_sandbox(request(namespaces=kinds, uid_mappings=maps, gid_mappings=maps), Facts())
    undo = plan.lanes[UNDO]
    made = {
        str(step.args["path"] if isinstance(step, Mkdirat) else step.args["name"])
        for step in plan.lanes[PARENT]
        if isinstance(step, (Mkdirat, CreateFile, MakeTarget)) and "cgroup" not in str(step.args.get("path"))
    }
    removed = {str(step.args["path"]).rpartition("ns/")[2] for step in undo if isinstance(step, Unlinkat)}
    assert made <= removed
    assert isinstance(undo[-1], Unlinkat) and undo[-1].args["path"] == DIRECTORY
    unmount = next(i for i, step in enumerate(undo) if isinstance(step, Umount))
    assert all(unmount < i for i, step in enumerate(undo) if isinstance(step, Unlinkat))


def test_an_end_takes_what_is_gone_as_done() -> None:
    for step in plan_end(DIRECTORY, ["/sys/fs/cgroup/p1"]).lanes[PARENT]:
        assert any(errno == 2 for errno, _ in step.on), step
