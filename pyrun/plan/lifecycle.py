"""What create prepares for later: the plans of start and delete, encoded into the record so that the launcher can
replay them.

Both have a parent lane only. Start: the FIFO is unlinked first, and who unlinks it is the one who starts. Delete
undoes what create made; the poststop hooks come after it, each a plan of its own, because one that fails is a warning
and the next one runs all the same.
"""

from __future__ import annotations

from ..oci.model import Spec
from .model.plan import Builder, Plan
from .model.request import Request
from .model.steps import PARENT, STAGE2, Await, Meet, Openat2, Release, RemoveCgroup, Unlinkat, WaitExec
from .namespace.namespaces import HOOKS
from .process.hooks import hook_steps, hooks_of, open_bundle, plan_hooks, state_json

O_WRONLY_NONBLOCK, O_RDONLY_NONBLOCK = 0o4001, 0o4000
AT_REMOVEDIR = 0x200
ENOENT = 2
FILES = ("status", "go", "config.json.new", "config.json")  # removed before the record
STATE, CGROUP = 0, 1  # slots that who runs a plan fills, with what it holds since it read the record


def plan_start(spec: Spec, req: Request) -> Plan:
    """Releases the parked init and waits for its exec; then poststart hooks."""
    b = Builder()
    state, go, status = b.slot("state"), b.slot("go"), b.slot("status")
    bundle = open_bundle(b, spec, req, "poststart")
    if req.notify:
        from .rootfs.notify import plan_notify_socket

        plan_notify_socket(b, state)
    b.add(
        PARENT,
        Openat2(dir=state, path="go", flags=O_WRONLY_NONBLOCK, out=go),
        Openat2(dir=state, path="status", flags=O_RDONLY_NONBLOCK, out=status),
        Unlinkat(dir=state, path="go", why="of two starts one wins"),
        Release(fifo=go, why="the init goes on to its exec"),
        WaitExec(status=status, why="end of file: the exec took place"),
        Unlinkat(dir=state, path="status", on=((ENOENT, None),)),
    )
    plan_hooks(b, PARENT, spec, "poststart", state_json(spec, req.id, req.bundle, "running"), bundle, req.environ)
    return b.plan()


def plan_delete(spec: Spec, req: Request, resctrl: str | None = None, *, kill: bool = False) -> Plan:
    """Removes the cgroup and the state. resctrl: where that is mounted. kill: also what runs in the cgroup."""
    b = Builder()
    state, cgroup = b.slot("state"), b.slot("cgroup")
    if req.cgroup:
        b.add(
            PARENT,
            RemoveCgroup(path=req.cgroup, cgroup=cgroup, still=state, kill=int(kill), at="/linux/cgroupsPath"),
        )
    if spec.linux and spec.linux.intel_rdt:
        from .cgroup.intelrdt import plan_rdt_delete

        plan_rdt_delete(b, spec, resctrl, req.id)
    if req.notify:
        from .rootfs.notify import notify_removal

        b.add(PARENT, *notify_removal(state))
    b.add(
        PARENT,
        *(Unlinkat(dir=state, path=name, on=((ENOENT, None),)) for name in FILES),
        Unlinkat(dir=state, path="record", why="of two deletes one wins"),
        Unlinkat(path=req.state_dir, flags=AT_REMOVEDIR, still=state),
    )
    return b.plan()


def plan_poststop(spec: Spec, req: Request) -> list[Plan]:
    """A plan for each poststop hook, for when the container is gone."""
    state = state_json(spec, req.id, req.bundle, "stopped", "0")
    plans = []
    for i in range(len(hooks_of(spec, "poststop"))):
        b = Builder()
        bundle = open_bundle(b, spec, req, "poststop")
        b.add(PARENT, hook_steps(spec, "poststop", state, bundle, req.environ)[i])
        plans.append(b.plan())
    return plans


def hooks_begun(plan: Plan, lane: int, step: int) -> bool:
    """Whether a create that failed there had come to its hooks. Then the lifecycle goes on with the poststop hooks
    (runtime.md, steps 3 to 5)."""
    kind = {PARENT: Await, STAGE2: Meet}.get(lane)
    return (
        any(isinstance(s, kind) and s.args["point"] == HOOKS and plan.index(s) < step for s in plan.lanes[lane])
        if kind
        else False
    )
