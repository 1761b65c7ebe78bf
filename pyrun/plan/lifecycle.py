"""What create prepares for later: the plans of start and delete, encoded into the record so that the launcher can replay them.

Both have a parent lane only. Start: the FIFO is unlinked first, and who unlinks it is the one who starts. Delete: the order of runtime.md,
steps 12 to 14: what create made is undone, then the poststop hooks run.
"""

from __future__ import annotations

from ..oci.model import Spec
from .hooks import plan_hooks, state_json
from .model import Builder, Plan
from .request import Request
from .steps import PARENT, Openat2, Release, RemoveCgroup, Unlinkat, WaitExec

O_WRONLY_NONBLOCK, O_RDONLY_NONBLOCK = 0o4001, 0o4000
AT_REMOVEDIR = 0x200
ENOENT = 2
FILES = ("record", "config.json", "go", "status")


def plan_start(spec: Spec, req: Request) -> Plan:
    """Releases the parked init and waits for its exec; then poststart hooks."""
    b = Builder()
    go, status = b.slot("go"), b.slot("status")
    b.add(PARENT, Openat2(path=f"{req.state_dir}/go", flags=O_WRONLY_NONBLOCK, out=go), Openat2(path=f"{req.state_dir}/status", flags=O_RDONLY_NONBLOCK, out=status),
          Unlinkat(path=f"{req.state_dir}/go", why="of two starts one wins"), Release(fifo=go, why="the init goes on to its exec"),
          WaitExec(status=status, why="end of file: the exec took place"), Unlinkat(path=f"{req.state_dir}/status", on=((ENOENT, None),)))
    plan_hooks(b, PARENT, spec, "poststart", state_json(spec, req.id, req.bundle, "running"))
    return b.plan()


def plan_delete(spec: Spec, req: Request) -> Plan:
    """Removes the cgroup with what is in it, and the state; then poststop hooks."""
    b = Builder()
    if req.cgroup:
        b.add(PARENT, RemoveCgroup(path=req.cgroup, recursive=1, at="/linux/cgroupsPath"))
    b.add(PARENT, *(Unlinkat(path=f"{req.state_dir}/{name}", on=((ENOENT, None),)) for name in reversed(FILES)), Unlinkat(path=req.state_dir, flags=AT_REMOVEDIR))
    plan_hooks(b, PARENT, spec, "poststop", state_json(spec, req.id, req.bundle, "stopped", "0"))
    return b.plan()
