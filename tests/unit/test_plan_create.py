"""The plan of create as data: what stands before what, and why that is the safety of it. No step is run."""

from __future__ import annotations

from typing import Any

import pytest

from pyrun.errors import ConfigError
from pyrun.facts import Facts
from pyrun.oci.model import (
    Capabilities,
    Hook,
    Hooks,
    Linux,
    Mount,
    Namespace,
    Resources,
    Spec,
    TimeOffset,
    TimeOffsets,
)
from pyrun.oci.names import NAMESPACES
from pyrun.plan.cgroup.scopes import SCOPE
from pyrun.plan.create import plan_create, warnings
from pyrun.plan.lifecycle import hooks_begun, plan_delete, plan_poststop, plan_start
from pyrun.plan.model import steps as s
from pyrun.plan.model.plan import Plan
from pyrun.plan.model.request import Request
from pyrun.plan.model.steps import PARENT, STAGE1, STAGE2, UNDO, Step
from pyrun.plan.namespace.namespaces import HOOKS, MAPS, READY
from pyrun.plan.process.hooks import KINDS, hooks_of
from tests.support.executor.plans import ALL, USER, facts, make_spec

CGROUP = "/sys/fs/cgroup/web"


def request(**words: Any) -> Request:
    given = {"id": "web", "bundle": "/b", "rootfs": "/b/rootfs", "state_dir": "/run/pyrun/web", "cgroup": CGROUP}
    return Request(**{**given, "record": b"record", "config": b"{}", **words})


def create(spec: Spec | None = None, host: Facts | None = None, **words: Any) -> Plan:
    return plan_create(spec or make_spec(), host or facts(), request(**words))


def places(steps: list[Step], kind: type[Step], **operands: object) -> list[int]:
    """Where in a lane the steps of this class stand that have these operands."""
    return [
        i
        for i, step in enumerate(steps)
        if isinstance(step, kind) and all(step.args.get(name) == value for name, value in operands.items())
    ]


def place(steps: list[Step], kind: type[Step], **operands: object) -> int:
    (found,) = places(steps, kind, **operands)
    return found


def with_hooks(spec: Spec) -> Spec:
    attributes = ("prestart", "create_runtime", "create_container", "start_container", "poststart", "poststop")
    return spec.replace(hooks=Hooks(**{name: (Hook(path=f"/{name}"),) for name in attributes}))


def spawned(steps: list[Step]) -> list[str]:
    return [str(step.at).split("/")[2] for step in steps if isinstance(step, s.Spawn)]


# --- the parent -------------------------------------------------------------------------------------------------------


def test_the_id_is_taken_before_anything_else() -> None:
    first = create().lanes[PARENT][0]
    assert isinstance(first, s.Mkdirat) and first.args["path"] == "/run/pyrun/web" and first.args["mode"] == 0o700


@pytest.mark.parametrize("early", [False, True], ids=["the init", "stage 1 of a user namespace"])
def test_who_comes_first_is_born_in_a_cgroup_that_has_its_limits(early: bool) -> None:
    """In a user namespace stage 1 has no right to the cgroup any more."""
    resources = Resources(unified={"memory.max": "4096"})
    host = facts(controllers=frozenset(("memory",)))
    spec = make_spec(kinds=(*ALL, "user"), resources=resources, **USER) if early else make_spec(resources=resources)
    plan = create(spec, host)
    parent, init = plan.lanes[PARENT], plan.lanes[STAGE1][-1]
    clone = parent[place(parent, s.Clone3)]
    first, other = (clone, init) if early else (init, clone)
    slot = first.args["cgroup"]
    made = next(i for i in places(parent, s.Openat2, path=CGROUP) if parent[i].args["out"] == slot)
    limit, attached = place(parent, s.WriteFile, path="memory.max"), place(parent, s.BpfProgAttach)
    assert made < limit < place(parent, s.Clone3) and attached < place(parent, s.Clone3)
    assert "cgroup" not in other.args and (slot in plan.inherit) is not early


def test_the_init_lets_go_of_its_cgroups_directory_first() -> None:
    """CVE-2024-21626: a descriptor of the host's would lead there."""
    plan = create()
    first = plan.lanes[STAGE2][0]
    assert isinstance(first, s.Close) and first.args["fd"] == plan.lanes[STAGE1][-1].args["cgroup"]


def test_the_limit_of_processes_comes_when_the_init_is_alone() -> None:
    """What sets the container up would count against it."""
    resources = Resources(unified={"pids.max": "1"})
    parent = create(make_spec(resources=resources), facts(controllers=frozenset(("pids",)))).lanes[PARENT]
    assert place(parent, s.WriteFile, path="pids.max") > place(parent, s.Await, point=READY)


def test_the_record_has_the_pid_before_a_hook_can_fail_and_says_created_last() -> None:
    parent = create(with_hooks(make_spec())).lanes[PARENT]
    early, late = places(parent, s.SavePid)
    assert place(parent, s.AwaitPid) < early < min(places(parent, s.Spawn))
    assert late == len(parent) - 2 and isinstance(parent[-1], s.Ack)
    assert (parent[early].args["status"], parent[late].args["status"]) == (0, 1)


def test_the_pid_file_is_there_before_the_container_is() -> None:
    parent = create(pid_file="/run/web.pid").lanes[PARENT]
    assert place(parent, s.PidFile) < places(parent, s.SavePid)[1]


def test_run_does_not_park_and_waits_for_the_exec() -> None:
    parked, at_once = create(), create(park=False)
    assert places(parked.lanes[STAGE2], s.Park) and not places(at_once.lanes[STAGE2], s.Park)
    assert not places(parked.lanes[PARENT], s.WaitExec) and places(at_once.lanes[PARENT], s.WaitExec)
    assert not places(at_once.lanes[PARENT], s.Mkfifoat)


def test_without_a_cgroup_nothing_of_one_is_planned() -> None:
    parent = create(cgroup=None).lanes[PARENT]
    assert not places(parent, s.BpfProgAttach) and not places(parent, s.CheckEmpty)
    assert "cgroup" not in " ".join(str(step.args.get("path")) for step in parent)


@pytest.mark.parametrize("early", [False, True], ids=["the init", "stage 1 of a user namespace"])
def test_with_systemd_who_comes_first_waits_for_its_unit_and_then_gets_its_limits(early: bool) -> None:
    resources = Resources(unified={"memory.max": "4096"})
    spec = make_spec(kinds=(*ALL, "user"), resources=resources, **USER) if early else make_spec(resources=resources)
    plan = create(spec, facts(controllers=frozenset(("memory",))), systemd=True)
    parent, lane = plan.lanes[PARENT], plan.lanes[STAGE1 if early else STAGE2]
    assert isinstance(lane[0], s.Meet) and lane[0].args["point"] == SCOPE
    order = [
        place(parent, s.Clone3),
        *([] if early else [place(parent, s.AwaitPid)]),
        place(parent, s.Await, point=SCOPE),
        place(parent, s.Yield),
        place(parent, s.Openat2, path=CGROUP),
        place(parent, s.WriteFile, path="memory.max"),
        *([place(parent, s.AwaitPid)] if early else []),
        place(parent, s.Await, point=HOOKS),
    ]
    assert order == sorted(order)
    assert not places(parent, s.Mkdirat, path=CGROUP)
    assert not places(plan.lanes[UNDO], s.RemoveCgroup)


# --- stage 1 ----------------------------------------------------------------------------------------------------------


def joined(*kinds: str, **linux: Any) -> Spec:
    found = tuple(Namespace(type=kind, path=f"/ns/{kind}") for kind in kinds)
    return make_spec(kinds=()).replace(linux=Linux(namespaces=found, **linux))


OTHERS = [NAMESPACES[kind] for kind in ("ipc", "uts", "network", "time", "cgroup", "pid", "mount")]


def join_order(spec: Spec, host: Facts | None = None) -> list[object]:
    stage1 = create(spec, host).lanes[STAGE1]
    return [step.args["nstype"] for step in stage1 if isinstance(step, s.Setns)]


def test_namespaces_are_joined_before_the_user_namespace_and_what_it_owns_after_it() -> None:
    user = NAMESPACES["user"]
    plan = create(joined(*sorted(NAMESPACES)))
    assert join_order(joined(*sorted(NAMESPACES))) == [*OTHERS, user, *OTHERS]
    assert not places(plan.lanes[STAGE2], s.Setns) and plan.lanes[STAGE1][-1].args["flags"] == 0
    ruled = [bool(step.on) for step in plan.lanes[STAGE1] if isinstance(step, s.Setns)]
    assert ruled == [True] * 7 + [False] * 8
    looked = [step.args["own"] for step in plan.lanes[STAGE1] if isinstance(step, s.CheckNs)]
    assert len(looked) == 8 and looked[0] == "self/ns/user" and "self/ns/pid_for_children" in looked


def test_without_privilege_the_user_namespace_gives_the_right_to_join() -> None:
    assert join_order(joined(*sorted(NAMESPACES)), facts(caps=0, rootless=True, euid=1000)) == [
        NAMESPACES["user"],
        *OTHERS,
    ]


def test_without_a_user_namespace_the_cgroup_namespace_is_joined_last() -> None:
    plan = create(joined(*sorted(NAMESPACES.keys() - {"user"})))
    assert join_order(joined(*sorted(NAMESPACES.keys() - {"user"}))) == [n for n in OTHERS if n != NAMESPACES["cgroup"]]
    assert len(places(plan.lanes[STAGE2], s.Setns, nstype=NAMESPACES["cgroup"])) == 1


def test_each_namespace_to_join_is_opened_and_checked_before_stage_1_is_made() -> None:
    parent = create(joined("pid", "mount")).lanes[PARENT]
    checks = places(parent, s.CheckNs)
    assert [parent[i].args["nstype"] for i in checks] == [NAMESPACES["pid"], NAMESPACES["mount"]]
    assert [parent[i].args["own"] for i in checks] == ["", "self/ns/mnt"]
    assert max(checks) < place(parent, s.Clone3)


def test_nothing_can_trace_stage_1_when_it_joins_a_pid_namespace() -> None:
    """CVE-2016-9962: and a change of ids would set dumpable again."""
    stage1 = create(joined("user", "pid")).lanes[STAGE1]
    pid = places(stage1, s.Setns, nstype=NAMESPACES["pid"])[-1]
    off = [i for i in places(stage1, s.Prctl, option=4) if stage1[i].args["arg2"] == 0]
    ids = [*places(stage1, s.Setresuid), *places(stage1, s.Setresgid)]
    assert max(i for i in off if i < pid) > max(ids)


def test_new_namespaces_are_the_flags_of_the_second_clone() -> None:
    stage1 = create().lanes[STAGE1]
    flags = 0
    for kind in ALL:
        flags |= NAMESPACES[kind]
    assert isinstance(stage1[-1], s.Clone3Init) and stage1[-1].args["flags"] == flags & ~NAMESPACES["cgroup"]


def test_the_new_cgroup_namespace_is_of_the_containers_cgroup() -> None:
    """Its root is where one is when it is made."""
    for spec in (make_spec(), make_spec(kinds=(*ALL, "user"), **USER)):
        stage2 = create(spec).lanes[STAGE2]
        assert place(stage2, s.Unshare, flags=NAMESPACES["cgroup"]) < place(stage2, s.Setsid)
    with_systemd = create(systemd=True).lanes[STAGE2]
    assert place(with_systemd, s.Meet, point=SCOPE) < place(with_systemd, s.Unshare, flags=NAMESPACES["cgroup"])


def test_time_is_unshared_and_set_before_the_clone() -> None:
    offsets = TimeOffsets(monotonic=TimeOffset(secs=5), boottime=TimeOffset(secs=-7, nanosecs=3))
    stage1 = create(make_spec(kinds=(*ALL, "time"), time_offsets=offsets)).lanes[STAGE1]
    written = [stage1[i] for i in places(stage1, s.WriteFile, path="self/timens_offsets")]
    assert [step.args["data"] for step in written] == ["monotonic 5 0\n", "boottime -7 3\n"]
    assert place(stage1, s.Unshare, flags=NAMESPACES["time"]) < places(stage1, s.WriteFile)[0]
    assert not stage1[-1].args["flags"] & NAMESPACES["time"]  # type: ignore[operator]


def test_the_parent_writes_the_maps_while_stage_1_waits() -> None:
    plan = create(make_spec(kinds=(*ALL, "user"), **USER))
    parent, stage1 = plan.lanes[PARENT], plan.lanes[STAGE1]
    wait = place(parent, s.Await, point=MAPS)
    maps = [place(parent, s.WriteFile, path=name) for name in ("gid_map", "uid_map")]
    assert [wait + 1, wait + 2] == maps and isinstance(parent[wait + 3], s.Ack)
    assert place(stage1, s.Unshare, flags=NAMESPACES["user"]) < place(stage1, s.Meet, point=MAPS)
    assert place(stage1, s.Meet, point=MAPS) < min(places(stage1, s.Setresuid))


def test_without_privilege_helpers_write_the_maps() -> None:
    spec = make_spec(kinds=(*ALL, "user"), **USER)
    host = facts(caps=0, euid=1000, egid=1000, rootless=True, newuidmap="/bin/newuidmap", newgidmap="/bin/newgidmap")
    parent = create(spec, host).lanes[PARENT]
    words = [parent[i].args["argv"] for i in places(parent, s.Spawn)]
    assert words == [(f"new{kind}map", s.PID_MARK, "0", "100000", "65536") for kind in ("gid", "uid")]
    with pytest.raises(ConfigError, match="newgidmap, which is not installed"):
        create(spec, facts(caps=0, euid=1000, egid=1000, rootless=True))


# --- stage 2 ----------------------------------------------------------------------------------------------------------


def test_privileges_go_in_the_order_that_works() -> None:
    caps = Capabilities(bounding=("CAP_KILL",), permitted=("CAP_KILL",), effective=("CAP_KILL",))
    process = {"capabilities": caps, "no_new_privileges": True}
    stage2 = create(make_spec(process=process)).lanes[STAGE2]
    order = [
        place(stage2, s.PivotRoot),
        place(stage2, s.Prctl, option=38),  # PR_SET_NO_NEW_PRIVS
        place(stage2, s.Capbset),
        place(stage2, s.Setgroups),
        place(stage2, s.Setresgid),
        place(stage2, s.Setresuid),
        place(stage2, s.Capset),
        place(stage2, s.Ambient),
        place(stage2, s.FindExecutable),
        place(stage2, s.CloseFds),
        place(stage2, s.Meet, point=READY),
        place(stage2, s.Park),
        place(stage2, s.Execve),
    ]
    assert order == sorted(order) and order[-1] == len(stage2) - 1


def test_an_inheritable_capability_that_is_not_asked_for_never_appears() -> None:
    """CVE-2022-29162."""
    caps = Capabilities(bounding=("CAP_KILL",), permitted=("CAP_KILL",), effective=("CAP_KILL",))
    stage2 = create(make_spec(process={"capabilities": caps})).lanes[STAGE2]
    assert [step.args["inheritable"] for step in stage2 if isinstance(step, s.Capset)] == [0]


def test_the_file_system_is_made_between_the_clone_and_the_hooks() -> None:
    stage2 = create(with_hooks(make_spec(Mount(destination="/t", type="tmpfs", source="t")))).lanes[STAGE2]
    hooks = place(stage2, s.Meet, point=HOOKS)
    assert max(places(stage2, s.MoveMount)) < hooks < place(stage2, s.PivotRoot)


def test_loopback_is_brought_up_only_in_a_namespace_of_our_own() -> None:
    assert len(places(create().lanes[STAGE2], s.Netlink)) == 1
    assert not places(create(joined("network", "mount")).lanes[STAGE2], s.Netlink)
    assert not places(create(make_spec(kinds=("mount",))).lanes[STAGE2], s.Netlink)


# --- hooks ------------------------------------------------------------------------------------------------------------


def test_hooks_stand_in_their_lanes_and_at_their_points() -> None:
    spec = with_hooks(make_spec())
    plan = create(spec)
    parent, stage2 = plan.lanes[PARENT], plan.lanes[STAGE2]
    assert spawned(parent) == ["prestart", "createRuntime"]
    assert spawned(stage2) == ["createContainer", "startContainer"]
    container, start = places(stage2, s.Spawn)
    assert place(stage2, s.Meet, point=HOOKS) < container < place(stage2, s.PivotRoot)
    assert place(stage2, s.Park) < start < place(stage2, s.Execve)
    assert spawned(plan_start(spec, request()).lanes[PARENT]) == ["poststart"]
    assert spawned(plan_delete(spec, request()).lanes[PARENT]) == []
    assert [spawned(later.lanes[PARENT]) for later in plan_poststop(spec, request())] == [["poststop"]]
    assert spawned(create(spec, park=False).lanes[PARENT]) == ["prestart", "createRuntime", "poststart"]


def test_every_kind_of_hook_is_known() -> None:
    spec = with_hooks(make_spec())
    assert all(len(hooks_of(spec, kind)) == 1 for kind in KINDS)


@pytest.mark.parametrize("lane, kind", [(PARENT, s.Await), (STAGE2, s.Meet)])
def test_poststop_runs_for_what_fails_from_the_hooks_on(lane: int, kind: type[Step]) -> None:
    plan = create(with_hooks(make_spec()))
    point = next(x for x in plan.lanes[lane] if isinstance(x, kind) and x.args["point"] == HOOKS)
    index = plan.index(point)
    assert not hooks_begun(plan, lane, index)
    assert hooks_begun(plan, lane, index + 1)
    assert not hooks_begun(plan, STAGE1, plan.index(plan.lanes[STAGE1][0]))


# --- undo -------------------------------------------------------------------------------------------------------------


def test_what_was_there_before_is_not_removed_by_an_undo() -> None:
    undo = create(pid_file="/run/web.pid").lanes[UNDO]
    guarded = [step for step in undo if "guard" in step.args]
    assert {type(step).__name__ for step in guarded} == {"Unlinkat", "RemoveCgroup"}
    free = [step for step in undo if "guard" not in step.args]
    assert all("dir" in step.args for step in free)  # files in a state directory that is ours by now


def test_undo_removes_every_file_of_the_state_directory() -> None:
    plan = create()
    made = [x.args["name"] for x in plan.lanes[PARENT] if isinstance(x, (s.CreateFile, s.Mkfifoat))]
    gone = [x.args["path"] for x in plan.lanes[UNDO] if isinstance(x, s.Unlinkat) and "dir" in x.args]
    assert set(gone) == set(made) == {"record", "config.json", "go", "status"}


# --- the whole --------------------------------------------------------------------------------------------------------


def test_the_same_facts_give_the_same_plan() -> None:
    spec = with_hooks(make_spec(kinds=(*ALL, "user", "time"), **USER))
    assert create(spec).encode() == create(spec).encode()


def test_preserved_descriptors_stay_below_ours() -> None:
    assert create(preserve_fds=4).keep_fds == 7


def test_every_slot_that_a_child_uses_and_the_parent_fills_is_handed_over() -> None:
    spec = with_hooks(make_spec(kinds=(*ALL, "user", "time"), process={"terminal": True}, **USER))
    plan = create(spec, console_socket="/tmp/s")
    filled = {step.args["out"] for step in plan.lanes[PARENT] if "out" in step.args}
    for lane in (STAGE1, STAGE2):
        for step in plan.lanes[lane]:
            used = {v for k, v in step.args.items() if k != "out" and step.FIELDS.get(k, 99) <= s.IN2}
            assert (used & filled) <= set(plan.inherit), f"{type(step).__name__} {step.args}"


def test_a_process_is_what_execve_gets() -> None:
    process = {"args": ("sh", "-c", "true"), "env": ("A=1", "PATH=/bin")}
    last = create(make_spec(process=process)).lanes[STAGE2][-1]
    assert isinstance(last, s.Execve)
    assert last.args["argv"] == ("sh", "-c", "true") and last.args["env"] == ("A=1", "PATH=/bin")


def test_what_is_left_out_is_warned_of() -> None:
    """config.md, Linux Process: what can't be granted MUST be logged as a warning. An ambient capability is one that is
    permitted and inheritable as well."""
    both = ("CAP_KILL", "CAP_CHOWN")
    caps = Capabilities(permitted=both, inheritable=("CAP_KILL",), ambient=both)
    spec = make_spec(process={"capabilities": caps})
    assert warnings(spec, facts()) == ["ignoring unknown or unavailable capabilities: CAP_CHOWN"]
    assert warnings(make_spec(), facts()) == []
    mounted = make_spec(Mount(destination="/proc", type="proc"), kinds=("pid",))
    assert len(warnings(mounted, facts())) == 1 and "mount namespace" in warnings(mounted, facts())[0]
