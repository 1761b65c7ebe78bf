"""The mounts of a pod's volumes, in the node's directory HOLDER, which is the pod's own.

HOLDER is an unbindable tmpfs below a private mount: what is mounted in it propagates to nobody, and a recursive bind of
what is above has none of it (a new mount namespace has, for there the kernel makes unbindable mounts private). Its end
is one umount2(2). The mounts live in the namespace of the daemon and of the pods' supervisors, as the sandboxes' pins
do, and so outlive the daemon. They do not live in a supervisor's own namespace: a container is planned by paths, and
its makers take those where the daemon is.

    HOLDER/NAME          an emptyDir (bound from the disk, or a tmpfs), or the tmpfs of a volume with files
    HOLDER/sub.CTR.N     what the container's volumeMount N has of a volume
"""

from __future__ import annotations

from .model.plan import Builder, Plan
from .model.steps import (
    O_PATH_DIRECTORY,
    PARENT,
    UNDO,
    CreateFile,
    Fsconfig,
    Fsmount,
    Fsopen,
    Label,
    Mkdirat,
    MountSetattr,
    MoveMount,
    Openat2,
    OpenTree,
    Umount,
    Unlinkat,
)

EEXIST, ENOENT, EINVAL = 17, 2, 22
AT_REMOVEDIR, AT_EMPTY_PATH, AT_RECURSIVE = 0x200, 0x1000, 0x8000
OPEN_TREE_CLONE = 1
F_EMPTY_PATH = 0x4
MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED = 1 << 17, 1 << 18, 1 << 19, 1 << 20
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8
NOSUID, NODEV, NOEXEC = 2, 4, 8  # MOUNT_ATTR_*
SET_FLAG, SET_STRING, CMD_CREATE = 0, 1, 6
HOLDER_SIZE = "1m"  # it has directories and empty files, to mount on


def plan_holder(path: str) -> Plan:
    """Makes HOLDER at path, whose parent is there."""
    b = Builder()
    onto, mount = b.slot("onto"), b.slot("holder")
    made = Mkdirat(path=path, mode=0o700, on=((EEXIST, None),), why="of the pod's volumes")
    b.add(PARENT, made, Openat2(path=path, flags=O_PATH_DIRECTORY, out=onto))
    _tmpfs(b, {"size": HOLDER_SIZE, "mode": "0700"}, NOSUID | NODEV | NOEXEC, mount)
    _attach(b, mount, onto, "", MS_UNBINDABLE)
    b.add(UNDO, Unlinkat(path=path, flags=AT_REMOVEDIR, guard=made))
    return b.plan()


def plan_tmpfs(holder: str, name: str, options: dict[str, str], *, swap: bool = False) -> Plan:
    """A tmpfs at HOLDER/NAME. swap: its pages may be written to a disk."""
    b = Builder()
    onto, mount = b.slot("holder"), b.slot("tmpfs")
    made = Mkdirat(dir=onto, path=name, mode=0o700, on=((EEXIST, None),))
    b.add(PARENT, Openat2(path=holder, flags=O_PATH_DIRECTORY, out=onto), made)
    _tmpfs(b, options, NOSUID | NODEV, mount, swap=swap)
    _attach(b, mount, onto, name, MS_SHARED)
    b.add(UNDO, Unlinkat(dir=onto, path=name, flags=AT_REMOVEDIR, guard=made))
    return b.plan()


def plan_bind(holder: str, name: str, source: str) -> Plan:
    """The directory `source` at HOLDER/NAME, as a mount whose peers are those of the pod alone: what is mounted in it
    by a container with Bidirectional is seen by the others, and by nobody else."""
    b = Builder()
    onto, mount = b.slot("holder"), b.slot("directory")
    made = Mkdirat(dir=onto, path=name, mode=0o700, on=((EEXIST, None),))
    b.add(
        PARENT,
        Openat2(path=holder, flags=O_PATH_DIRECTORY, out=onto),
        made,
        OpenTree(path=source, flags=OPEN_TREE_CLONE, out=mount),
        MountSetattr(mount=mount, path="", at_flags=AT_EMPTY_PATH, propagation=MS_PRIVATE, why="no peer of its disk's"),
    )
    _attach(b, mount, onto, name, MS_SHARED)
    b.add(UNDO, Unlinkat(dir=onto, path=name, flags=AT_REMOVEDIR, guard=made))
    return b.plan()


def plan_sub_path(holder: str, name: str, *, directory: bool, propagation: int) -> Plan:
    """What a descriptor, held as slot 0, has found in a volume, at HOLDER/NAME; what was there goes.

    propagation: MS_PRIVATE, or for mountPropagation MS_SLAVE and MS_SHARED."""
    b = Builder()
    found, onto, mount = b.slot("found"), b.slot("holder"), b.slot("clone")
    gone = ((EINVAL, None), (ENOENT, None))
    b.add(
        PARENT,
        Umount(path=f"{holder}/{name}", flags=MNT_DETACH | UMOUNT_NOFOLLOW, on=gone, why="an earlier container's"),
        Openat2(path=holder, flags=O_PATH_DIRECTORY, out=onto),
        *_emptied(onto, name),
    )
    if directory:
        b.add(PARENT, Mkdirat(dir=onto, path=name, mode=0o700))
    else:
        b.add(PARENT, CreateFile(dir=onto, name=name, mode=0o600, data=""))
    b.add(
        PARENT,
        OpenTree(
            dir=found,
            path="",
            flags=OPEN_TREE_CLONE | AT_EMPTY_PATH | AT_RECURSIVE,
            out=mount,
            why="of the descriptor, not of a path (CVE-2021-25741)",
        ),
    )
    if propagation != MS_SHARED:
        b.add(
            PARENT,
            MountSetattr(mount=mount, path="", at_flags=AT_EMPTY_PATH | AT_RECURSIVE, propagation=propagation),
        )
    b.add(PARENT, MoveMount(mount=mount, onto=onto, dst=name, flags=F_EMPTY_PATH))
    return b.plan()


def _emptied(onto: int, name: str) -> tuple[Unlinkat | Label, ...]:
    """Whichever of the two it is: EISDIR for a directory, ENOTDIR for a file."""
    other = Label("it was a file, or nothing")
    eisdir, enotdir = 21, 20
    return (
        Unlinkat(dir=onto, path=name, flags=AT_REMOVEDIR, on=((ENOENT, other), (enotdir, None))),
        Unlinkat(dir=onto, path=name, on=((ENOENT, other), (eisdir, None))),
        other,
    )


def plan_gone(holder: str, names: tuple[str, ...]) -> Plan:
    """Takes HOLDER/NAME away, of each that is there."""
    b = Builder()
    onto = b.slot("holder")
    none = Label("there is no holder")
    gone = ((EINVAL, None), (ENOENT, None))
    b.add(PARENT, Openat2(path=holder, flags=O_PATH_DIRECTORY, out=onto, on=((ENOENT, none),)))
    for name in names:
        b.add(
            PARENT,
            _leave_peers(f"{holder}/{name}"),
            Umount(path=f"{holder}/{name}", flags=MNT_DETACH | UMOUNT_NOFOLLOW, on=gone),
            *_emptied(onto, name),
        )
    b.add(PARENT, none)
    return b.plan()


def plan_end(holder: str) -> Plan:
    """All of it goes, whole or half made; no error where it is not there."""
    b = Builder()
    gone = ((EINVAL, None), (ENOENT, None))
    b.add(
        PARENT,
        _leave_peers(holder),
        Umount(path=holder, flags=MNT_DETACH | UMOUNT_NOFOLLOW, on=gone, why="with every mount in it"),
        Unlinkat(path=holder, flags=AT_REMOVEDIR, on=((ENOENT, None),)),
    )
    return b.plan()


def _leave_peers(path: str) -> MountSetattr:
    """Before a mount with others below it goes: else the end of those below would propagate to the host's."""
    return MountSetattr(
        path=path,
        at_flags=AT_RECURSIVE,
        propagation=MS_PRIVATE,
        on=((EINVAL, None), (ENOENT, None)),
        why="no end of a mount propagates",
    )


def _tmpfs(b: Builder, options: dict[str, str], attrs: int, out: int, *, swap: bool = True) -> None:
    fs = b.slot("fs")
    b.add(PARENT, Fsopen(fstype="tmpfs", out=fs))
    if not swap:
        b.add(PARENT, Fsconfig(fs=fs, cmd=SET_FLAG, key="noswap", on=((EINVAL, None),), why="from Linux 6.4 on"))
    b.add(
        PARENT,
        *(Fsconfig(fs=fs, cmd=SET_STRING, key=key, value=value) for key, value in options.items()),
        Fsconfig(fs=fs, cmd=CMD_CREATE),
        Fsmount(fs=fs, attrs=attrs, out=out),
    )


def _attach(b: Builder, mount: int, onto: int, name: str, propagation: int) -> None:
    t_empty_path = 0 if name else 0x40
    b.add(
        PARENT,
        MountSetattr(mount=mount, path="", at_flags=AT_EMPTY_PATH, propagation=propagation),
        MoveMount(
            mount=mount, onto=onto, dst=name, flags=F_EMPTY_PATH | t_empty_path, why="last: what is there is whole"
        ),
    )
