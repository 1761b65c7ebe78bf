"""The plan of process 1 of a pod's shared PID namespace: a pyrun-init that is parked for good.

Every container of the pod sees it, and one that may trace it could come to whatever it has: so it has an empty root, no
descriptor, no capability, and cannot be dumped. Orphans are reaped by the kernel (SA_NOCLDWAIT).
"""

from __future__ import annotations

from ..facts import Facts
from ..oci import names
from .model.plan import Builder, Plan
from .model.steps import (
    PARENT,
    STAGE1,
    STAGE2,
    Ack,
    Await,
    AwaitPid,
    Capset,
    Clone3,
    Clone3Init,
    Close,
    Fsconfig,
    Fsmount,
    Fsopen,
    Meet,
    MountSetattr,
    MoveMount,
    Openat2,
    Park,
    PivotRoot,
    Prctl,
    Setns,
    Setresgid,
    Setresuid,
    Setsid,
    Unshare,
    WaitExec,
)
from .namespace.namespaces import PATIENCE_MS, READY

AT = "/linux/security_context/namespace_options/pid"
AT_RECURSIVE, CMD_CREATE, FROM_FD, MS_PRIVATE = 0x8000, 6, 4, 1 << 18
NOSUID, NODEV, NOEXEC, RDONLY = 2, 4, 8, 1
PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 4, 38


def plan_pid_holder(facts: Facts, user_ns: str | None = None) -> Plan:
    """user_ns: the file of the user namespace that is to own the PID namespace; None: ours."""
    b = Builder()
    fs, root = b.slot("root-fs"), b.slot("root")
    mounts = names.NAMESPACES["mount"]
    user = b.slot("user-ns", inherit=True) if user_ns is not None else None
    if user is not None:
        b.add(PARENT, Openat2(path=user_ns, flags=0, out=user, at=AT))
    b.add(
        PARENT,
        Clone3(image=facts.init_path, load=facts.memfd, flags=0, at=AT),
        AwaitPid(patience_ms=PATIENCE_MS),
        Await(point=READY, patience_ms=PATIENCE_MS),
        Ack(),
        WaitExec(patience_ms=PATIENCE_MS, why="end of file: it has closed all that it had"),
    )
    b.add(
        STAGE1,
        Prctl(option=PR_SET_DUMPABLE, arg2=0, why="nobody in it may trace it"),
        Unshare(flags=mounts, at=AT, why="an empty root needs a mount namespace"),
        MountSetattr(mount=None, path="/", at_flags=AT_RECURSIVE, propagation=MS_PRIVATE),
        Fsopen(fstype="tmpfs", out=fs),
        Fsconfig(fs=fs, cmd=CMD_CREATE),
        Fsmount(fs=fs, attrs=NOSUID | NODEV | NOEXEC | RDONLY, out=root, why="where it is born: there is nothing"),
        MoveMount(mount=root, dst="/", flags=FROM_FD),
        PivotRoot(root=root, why="it has no way to the host's files, and so nobody has it through it"),
        Close(fd=root),
        Close(fd=fs),
    )
    if user is not None:
        b.add(
            STAGE1,
            Setns(ns=user, nstype=names.NAMESPACES["user"], at=AT, why="the PID namespace is to be its own"),
            Setresgid(gid=0),
            Setresuid(uid=0, why="who joined has no more the ids that it had"),
            Prctl(option=PR_SET_DUMPABLE, arg2=0),
            Close(fd=user),
        )
    b.add(STAGE1, Clone3Init(flags=names.NAMESPACES["pid"], at=AT, why="process 1"))
    b.add(
        STAGE2,
        Setsid(),
        Prctl(option=PR_SET_NO_NEW_PRIVS, arg2=1),
        Capset(effective=0, permitted=0, inheritable=0, why="it does nothing, and needs none for that"),
        Meet(point=READY),
        Park(forever=1, why="for as long as the pod lives"),
    )
    return b.plan()
