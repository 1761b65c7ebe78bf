"""readonlyPaths, maskedPaths and sysctl.

The paths are hidden before the pivot: a mount can only be cloned from a source in our own mount namespace, and the
host's /dev/null, which no image can have replaced, is there until then (CVE-2025-31133). What an image lacks is
passed over, as the spec's examples name paths that not every kernel has. Sysctls are written through a procfs that is
mounted nowhere, where nothing can have been put in the way (CVE-2025-52881), and so may come after.
"""

from __future__ import annotations

from ...oci.checks_linux import sysctl_path
from ..model.steps import (
    ANY,
    PARENT,
    STAGE2,
    CheckDevice,
    CheckFs,
    CheckType,
    Fsconfig,
    Fsmount,
    Fsopen,
    Goto,
    Label,
    MountSetattr,
    MoveMount,
    Openat2,
    OpenTree,
    WriteFile,
)
from .mount_options import MS_PRIVATE, NODEV, NOEXEC, NOSUID, RDONLY
from .rootfs_plan import (
    AT_EMPTY_PATH,
    AT_RECURSIVE,
    BY_FD,
    CLONE_FD,
    CMD_CREATE,
    ENOENT,
    ENOTDIR,
    EPERM,
    IN_ROOT,
    NULL,
    O_PATH,
    PROC_SUPER_MAGIC,
    RESOLVE_BENEATH,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    S_IFDIR,
    SET_STRING,
    RootfsPlan,
    clean_path,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...oci import model
    from ..model.plan import Builder
    from ..model.steps import Step

CLONES_OF_DETACHED = (6, 15)  # the first kernel where open_tree(2) clones a mount that is attached nowhere


def needs_proc(spec: model.Spec) -> bool:
    process = spec.process
    labels = process is not None and bool(process.apparmor_profile or process.selinux_label)
    return labels or bool(spec.linux and spec.linux.sysctl)


def plan_proc_parent(b: Builder, rp: RootfsPlan) -> None:
    """The host's /proc for where no private one may be had: a user namespace whose /proc is covered in part (nested
    containers).
    """
    rp.proc = b.slot("private-proc", inherit=not rp.bare)
    if rp.bare:  # which could be opened through the init
        return
    b.add(
        PARENT,
        Openat2(path="/proc", flags=O_PATH, out=rp.proc, why="stands in where no private procfs may be made"),
        CheckFs(fd=rp.proc, magic=PROC_SUPER_MAGIC, why="a real one"),
    )


def plan_proc_child(b: Builder, rp: RootfsPlan) -> None:
    """A procfs of the container's PID namespace, mounted nowhere. While the host's is still visible, or the kernel
    refuses.

    EPERM may go on: the host's, which the parent opened and checked, does as well for what is written through it, with
    no symlink and no other mount on the way."""
    skip = Label("the host's /proc")
    refused = () if rp.bare else ((EPERM, skip),)
    b.add(
        STAGE2,
        Fsopen(
            fstype="proc", out=rp.fs, on=refused, why="a procfs that nobody else can put anything into (CVE-2025-52881)"
        ),
        Fsconfig(fs=rp.fs, cmd=CMD_CREATE, on=refused),
        Fsmount(fs=rp.fs, attrs=NOSUID | NODEV | NOEXEC, out=rp.proc, on=refused),
        skip,
    )


def plan_sysctls(b: Builder, spec: model.Spec, rp: RootfsPlan) -> None:
    """Values are written as they are: what a leading or trailing blank means is the kernel's affair."""
    resolve = RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS
    for key, value in (spec.linux.sysctl if spec.linux else {}).items():
        at = "/linux/sysctl/" + key.replace("~", "~0").replace("/", "~1")
        b.add(
            STAGE2,
            WriteFile(
                dir=rp.proc, path="sys/" + sysctl_path(key), data=value, magic=PROC_SUPER_MAGIC, resolve=resolve, at=at
            ),
        )


def plan_readonly_paths(b: Builder, spec: model.Spec, rp: RootfsPlan) -> None:
    """Each is bound on itself, read-only; what is mounted below stays as it is, as with runc."""
    for i, path in enumerate(spec.linux.readonly_paths if spec.linux else ()):
        at, missing = f"/linux/readonlyPaths/{i}", Label(f"no {path}")
        b.add(
            STAGE2,
            _open(rp, path, at, missing),
            OpenTree(dir=rp.target, path="", flags=CLONE_FD | AT_RECURSIVE, out=rp.mount, at=at),
            MountSetattr(mount=rp.mount, at_flags=AT_EMPTY_PATH, set=RDONLY, at=at),
            MoveMount(mount=rp.mount, onto=rp.target, flags=BY_FD, at=at, why=f"{path} read-only"),
            missing,
        )


def _open(rp: RootfsPlan, path: str, at: str, missing: Label) -> Openat2:
    return Openat2(
        dir=rp.root,
        path=path,
        flags=O_PATH,
        resolve=IN_ROOT,
        out=rp.target,
        at=at,
        on=((ENOENT, missing), (ENOTDIR, missing)),  # there is nothing to hide; any other errno fails
        why="nothing to do where it is missing",
    )


def plan_masked_paths(b: Builder, spec: model.Spec, rp: RootfsPlan) -> None:
    """/dev/null on files, an empty tmpfs on directories: one for all where the kernel can clone it. Both are read-only,
    /dev/null because it is the host's, whose mode and owner would be the container's to change.
    """
    paths = {
        clean_path(path): i for i, path in reversed(list(enumerate(spec.linux.masked_paths if spec.linux else ())))
    }
    if not paths:
        return
    null, empty = b.slot("null"), rp.mount
    b.add(
        STAGE2,
        Openat2(
            path=NULL if rp.bare else "/dev/null",
            flags=O_PATH,
            resolve=RESOLVE_NO_SYMLINKS,
            out=null,
            why="the host's (CVE-2025-31133)",
        ),
        CheckDevice(fd=null, major=1, minor=3, why="the real one"),
    )
    shared = rp.kernel >= CLONES_OF_DETACHED
    if shared:
        empty, source, null = b.slot("empty"), null, b.slot("mask")
        _empty_tmpfs(b, rp, "/linux/maskedPaths", empty)
        b.add(STAGE2, *_clone_null(source, null, "/linux/maskedPaths"))
    for path, i in reversed(paths.items()):
        _mask(b, rp, path, f"/linux/maskedPaths/{i}", null, empty)


def _clone_null(null: int, out: int, at: str) -> tuple[Step, ...]:
    return (
        OpenTree(dir=null, path="", flags=CLONE_FD, out=out, at=at),
        MountSetattr(
            mount=out, at_flags=AT_EMPTY_PATH, set=RDONLY, propagation=MS_PRIVATE, at=at, why="the host keeps its own"
        ),
    )


def _mask(b: Builder, rp: RootfsPlan, path: str, at: str, null: int, empty: int) -> None:
    file, attach, done = Label("a file"), Label("attach"), Label(f"{path} is masked")
    b.add(STAGE2, _open(rp, path, at, done), CheckType(fd=rp.target, type=S_IFDIR, on=((ENOTDIR, file),), at=at))
    file_mask: tuple[Step, ...]
    if empty == rp.mount:
        _empty_tmpfs(b, rp, at, empty)
        file_mask = _clone_null(null, rp.mount, at)
    else:
        b.add(STAGE2, OpenTree(dir=empty, path="", flags=CLONE_FD, out=rp.mount, at=at))
        file_mask = (OpenTree(dir=null, path="", flags=CLONE_FD, out=rp.mount, at=at),)
    b.add(
        STAGE2,
        Goto(on=((ANY, attach),)),
        file,
        *file_mask,
        attach,
        MoveMount(mount=rp.mount, onto=rp.target, flags=BY_FD, at=at, why=f"{path} is hidden"),
        done,
    )


def _empty_tmpfs(b: Builder, rp: RootfsPlan, at: str, out: int) -> None:
    b.add(
        STAGE2,
        Fsopen(fstype="tmpfs", out=rp.fs, at=at),
        Fsconfig(fs=rp.fs, cmd=SET_STRING, key="nr_blocks", value="1", at=at),
        Fsconfig(fs=rp.fs, cmd=SET_STRING, key="nr_inodes", value="1", at=at),
    )
    if rp.label:
        b.add(STAGE2, Fsconfig(fs=rp.fs, cmd=SET_STRING, key="context", value=rp.label, at="/linux/mountLabel"))
    b.add(
        STAGE2,
        Fsconfig(fs=rp.fs, cmd=CMD_CREATE, at=at),
        Fsmount(fs=rp.fs, attrs=RDONLY, out=out, at=at, why="empty, and stays so"),
    )
