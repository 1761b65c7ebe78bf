"""The container's file system, in the order in which its planners are called:

parent   plan_rootfs_parent   what needs the parent's privileges: clones for a user namespace, idmaps, the host's /proc
stage 1  plan_rootfs_stage1   where the init's PID namespace is another's: all that takes the host's paths
stage 2  plan_rootfs_child    propagation; the root on itself; mounts as listed; /dev. From here the root is a mount
of ours
         (plan_console, hooks: prestart, createRuntime, createContainer see the mounts, and the host's files still)
         plan_rootfs_pivot    readonlyPaths, then maskedPaths, as a readonly one may lie above; pivot_root; shared or
         unbindable root
         plan_rootfs_finish   sysctls; the working directory, while the root may be written; read-only tmpfs, /dev and
         root

Why the paths are hidden before the pivot stands in masks.py. The root becomes read-only last, since hooks write to
it. A container without a mount namespace of its own gets no mounts, devices or hidden paths, as they would be the
host's, only a chroot(2).
"""

from __future__ import annotations

from ...errors import ConfigError, PyrunError
from ..model.steps import (
    ANY,
    PARENT,
    STAGE1,
    STAGE2,
    CheckFs,
    Chroot,
    Goto,
    Label,
    MakeTarget,
    MountSetattr,
    MoveMount,
    Openat2,
    OpenTree,
    PivotRoot,
    Umask,
)
from .dev_nodes import plan_console, plan_dev, plan_nodes_parent
from .masks import needs_proc, plan_masked_paths, plan_proc_child, plan_proc_parent, plan_readonly_paths, plan_sysctls
from .mount_options import MS_PRIVATE, MS_SHARED, MS_SLAVE, MS_UNBINDABLE, RDONLY
from .mounts import plan_mounts, plan_mounts_parent
from .rootfs_plan import (
    AT_EMPTY_PATH,
    AT_RECURSIVE,
    BY_FD,
    EACCES,
    EINVAL,
    EPERM,
    FROM_FD,
    NONE,
    O_PATH,
    OPEN_TREE_CLONE,
    PROC_SUPER_MAGIC,
    RootfsPlan,
    clean_path,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...facts import Facts
    from ...oci.model import Spec
    from ..model.overlay import Overlay
    from ..model.plan import Builder

WHOLE_TREE = AT_EMPTY_PATH | AT_RECURSIVE


def plan_rootfs_parent(
    b: Builder,
    spec: Spec,
    facts: Facts,
    *,
    rootfs: str,
    bundle: str = "",
    cgroup: str | None = None,
    overlay: Overlay | None = None,
) -> RootfsPlan:
    """PARENT steps that come before stage 1. rootfs, bundle and cgroup are absolute host paths."""
    rp = RootfsPlan(b, spec, facts, rootfs, bundle, cgroup, overlay)
    if rp.label and "selinux" not in facts.lsm:
        raise ConfigError([("/linux/mountLabel", "is set, and SELinux is not enabled on this host")])
    if needs_proc(spec):
        plan_proc_parent(b, rp)
    if not rp.mntns:
        _check_shared(spec)
        if overlay is not None:
            raise PyrunError(
                "a root out of layers needs a mount namespace of the container's own", pointer="/root/path"
            )
        return rp
    proc = NONE
    idmap = overlay is not None and overlay.idmap
    if idmap or any(m.uid_mappings or "idmap" in m.options or "ridmap" in m.options for m in spec.mounts):
        proc = b.slot("idmap-proc")
        b.add(
            PARENT,
            Openat2(path="/proc", flags=O_PATH, out=proc, why="to write the maps of idmaps"),
            CheckFs(fd=proc, magic=PROC_SUPER_MAGIC, why="a real one"),
        )
    if overlay is not None:
        from .overlay import plan_overlay_parent

        plan_overlay_parent(b, spec, rp, proc)
    elif rp.parent_mounts:
        # Our mount namespace is not our user namespace's: no clone, so stage 2 must find the root by itself.
        nested = Label("no clone of the root")
        b.add(
            PARENT,
            OpenTree(
                path=rootfs,
                flags=OPEN_TREE_CLONE | AT_RECURSIVE,
                out=rp.root,
                on=((EPERM, nested),),
                at="/root/path",
                why="for a container that may not walk there",
            ),
            MountSetattr(mount=rp.root, at_flags=WHOLE_TREE, propagation=MS_SLAVE, at="/root/path"),
            nested,
        )
    plan_mounts_parent(b, spec, rp, proc)
    plan_nodes_parent(b, spec, rp)
    return rp


def _check_shared(spec: Spec) -> None:
    """Without a mount namespace of its own. The kernel's file systems are left out with a warning (plan/create.py), as
    runtime-tools' configs have them; whatever else would be mounted, or protected, must not be missed in silence."""
    linux = spec.linux
    wanted: list[tuple[str, object]] = [
        (f"/mounts/{i}", not f"{clean_path(m.destination)}/".startswith(("/proc/", "/sys/", "/dev/")))
        for i, m in enumerate(spec.mounts)
    ]
    wanted.append(("/root/readonly", spec.root.readonly))
    if linux is not None:
        wanted += (("/linux/devices", linux.devices), ("/linux/rootfsPropagation", linux.rootfs_propagation))
        wanted.append(("/linux/mountLabel", linux.mount_label))
    text = "needs a mount namespace in /linux/namespaces, or it would change the host's"
    faults = [(at, text) for at, value in wanted if value]
    if faults:
        raise ConfigError(faults)


def plan_rootfs_stage1(b: Builder, spec: Spec, rp: RootfsPlan) -> None:
    """STAGE1: what takes the host's paths, where the init must not have them (bare_root.py)."""
    from .bare_root import plan_bare_root, plan_mount_namespace

    plan_mount_namespace(b)
    _propagation(b, STAGE1, spec, rp)
    if rp.overlay is None:
        kind, _ = _kind(spec)
        root = OpenTree(path=rp.rootfs, flags=OPEN_TREE_CLONE | AT_RECURSIVE, out=rp.root, at="/root/path")
        b.add(STAGE1, root, *(() if kind == MS_SLAVE else (_private(rp, kind),)))
    else:
        from .overlay import is_made_late, plan_overlay_here

        if is_made_late(rp):
            plan_overlay_here(b, rp)
    if rp.late_overlays and rp.overlay is None:
        from .overlay import plan_late_overlays

        plan_late_overlays(b, rp)
    plan_bare_root(b, spec, rp)


def plan_rootfs_child(b: Builder, spec: Spec, facts: Facts, rp: RootfsPlan) -> None:
    """STAGE2: all that has to be there before the hooks."""
    if rp.proc != NONE:
        plan_proc_child(b, rp)
    if not rp.mntns:
        b.add(STAGE2, Openat2(path=rp.rootfs.rstrip("/") + "/", flags=O_PATH, out=rp.root, at="/root/path"))
        return
    b.add(STAGE2, Umask(mask=0, why="what is made here gets the mode that the step says"))
    if rp.bare:
        b.add(STAGE2, MoveMount(mount=rp.root, dst="/", flags=FROM_FD, at="/root/path", why="on the empty tmpfs"))
    else:
        _propagation(b, STAGE2, spec, rp)
        _attach_root(b, spec, rp)
    if rp.overlay is not None:
        from .overlay import plan_volumes

        plan_volumes(b, spec, rp)
    plan_mounts(b, spec, rp)
    plan_dev(b, spec, rp)
    b.add(STAGE2, Umask(mask=0o022))


def plan_rootfs_pivot(b: Builder, spec: Spec, facts: Facts, rp: RootfsPlan) -> None:
    """STAGE2: the last that needs the host's files, and the change of root."""
    if not rp.mntns:
        b.add(STAGE2, Chroot(root=rp.root, at="/root/path", why="no mount namespace, so no pivot_root(2)"))
        return
    plan_readonly_paths(b, spec, rp)
    plan_masked_paths(b, spec, rp)
    b.add(STAGE2, PivotRoot(root=rp.root, at="/root/path", why="from here on the host's files are out of reach"))
    kind, recursive = _kind(spec)
    if kind in (MS_SHARED, MS_UNBINDABLE):
        flags = WHOLE_TREE if recursive else AT_EMPTY_PATH
        b.add(
            STAGE2,
            MountSetattr(
                mount=rp.root,
                at_flags=flags,
                propagation=kind,
                at="/linux/rootfsPropagation",
                why="a peer group of its own" if kind == MS_SHARED else "can't be bound elsewhere",
            ),
        )


def plan_rootfs_finish(b: Builder, spec: Spec, facts: Facts, rp: RootfsPlan) -> None:
    """STAGE2, in the new root: what could not be read-only until now, and what does not matter where it is done."""
    plan_sysctls(b, spec, rp)
    cwd = clean_path(spec.process.cwd) if spec.process else "/"
    if cwd != "/":
        b.add(
            STAGE2,
            MakeTarget(root=rp.root, path=cwd, mode=0o755, out=rp.target, at="/process/cwd", why="made if missing"),
        )
    if not rp.mntns:
        return
    why = "read-only now that all is made in it"  # by its descriptor, as another may lie on it or above it
    for slot, at in rp.late_ro:
        b.add(STAGE2, MountSetattr(mount=slot, at_flags=AT_EMPTY_PATH, set=RDONLY, at=at, why=why))
    if spec.root.readonly:
        b.add(STAGE2, MountSetattr(mount=rp.root, at_flags=AT_EMPTY_PATH, set=RDONLY, at="/root/readonly"))


def _kind(spec: Spec) -> tuple[int, bool]:
    """rootfsPropagation as MS_*, 0 when it is absent, and whether it holds for all below."""
    text = (spec.linux.rootfs_propagation if spec.linux else None) or ""
    kinds = {"private": MS_PRIVATE, "slave": MS_SLAVE, "shared": MS_SHARED, "unbindable": MS_UNBINDABLE}
    if text.startswith("r"):
        return kinds[text[1:]], True
    return kinds.get(text, 0), False


def _propagation(b: Builder, lane: int, spec: Spec, rp: RootfsPlan) -> None:
    """Before anything is mounted: no mount of ours may reach the host.

    With a shared root, volumes that are to propagate both ways need sources that are still the host's peers, so only
    the mount that carries the root is made private. The kernel has already made slaves of all mounts that a user
    namespace gets.
    """
    kind, _ = _kind(spec)
    at = "/linux/rootfsPropagation" if kind else None
    if kind == MS_SHARED:
        if rp.bare:
            why = "what the init is born in is mounted on it"
            b.add(lane, MountSetattr(path="/", propagation=MS_PRIVATE, at="/linux/rootfsPropagation", why=why))
        elif not rp.own_userns:
            _private_parent(b, rp)
        return
    now = MS_SLAVE if kind in (0, MS_SLAVE) else MS_PRIVATE
    b.add(
        lane,
        MountSetattr(
            path="/", at_flags=AT_RECURSIVE, propagation=now, at=at, why="our mounts stay out of the host's namespace"
        ),
    )


def _private_parent(b: Builder, rp: RootfsPlan) -> None:
    """The mount that the root's directory lies on is found by trying: EINVAL says that it is no mount point. Should
    the wrong one become private, pivot_root(2) refuses a root whose parent is shared."""
    path, done = rp.rootfs.rstrip("/") or "/", Label("private")
    while True:
        above = Label(f"above {path}")
        rules = ((EINVAL, above),) if path != "/" else ()
        b.add(
            STAGE2,
            MountSetattr(
                path=path,
                propagation=MS_PRIVATE,
                on=rules,
                at="/linux/rootfsPropagation",
                why="the root is mounted on it",
            ),
        )
        if path == "/":
            break
        b.add(STAGE2, Goto(on=((ANY, done),)), above)
        path = path.rpartition("/")[0] or "/"
    b.add(STAGE2, done)


def _attach_root(b: Builder, spec: Spec, rp: RootfsPlan) -> None:
    """The root's clone on its own directory, as pivot_root(2) wants a mount; or on "/" when we may not walk to that
    directory.
    """
    kind, _ = _kind(spec)
    at, over, done = "/root/path", Label("on /"), Label("root attached")
    base = b.slot("root-directory")
    rules = ((EACCES, over),) if rp.parent_mounts else ()  # the parent has cloned it: only its place is another
    b.add(STAGE2, Openat2(path=rp.rootfs.rstrip("/") + "/", flags=O_PATH, out=base, on=rules, at=at))
    if rp.overlay is not None:
        _attach_overlay(b, rp, base, over, done)
        return
    b.add(
        STAGE2,
        OpenTree(
            dir=base,
            path="",
            flags=OPEN_TREE_CLONE | WHOLE_TREE,
            out=rp.root,
            at=at,
            why="the root as a mount of its own",
        ),
        *(() if kind == MS_SLAVE else (_private(rp, kind),)),
        MoveMount(mount=rp.root, onto=base, flags=BY_FD, at=at, why="on itself"),
    )
    if rp.parent_mounts:
        closed = "its directory is closed to the container's ids"
        b.add(STAGE2, Goto(on=((ANY, done),)), over, *(() if kind == MS_SLAVE else (_private(rp, kind),)))
        b.add(STAGE2, MoveMount(mount=rp.root, dst="/", flags=FROM_FD, at=at, why=closed), done)


def _attach_overlay(b: Builder, rp: RootfsPlan, base: int, over: Label, done: Label) -> None:
    """The same for what was made out of layers: it is no clone, and already private."""
    from .overlay import is_made_late, plan_overlay_stage2

    at = "/root/path"
    if is_made_late(rp) and not rp.own_userns:
        plan_overlay_stage2(b, rp, base)
        return
    b.add(STAGE2, MoveMount(mount=rp.root, onto=base, flags=BY_FD, at=at, why="on its directory, here alone"))
    if rp.parent_mounts:
        why = "its directory is closed to the container's ids"
        b.add(STAGE2, Goto(on=((ANY, done),)), over, MoveMount(mount=rp.root, dst="/", flags=FROM_FD, at=at, why=why))
        b.add(STAGE2, done)


def _private(rp: RootfsPlan, kind: int) -> MountSetattr:
    at = "/linux/rootfsPropagation" if kind else "/root/path"
    why = "what the host mounts below does not show up"
    return MountSetattr(mount=rp.root, at_flags=WHOLE_TREE, propagation=MS_PRIVATE, at=at, why=why)


__all__ = [
    "RootfsPlan",
    "plan_console",
    "plan_rootfs_child",
    "plan_rootfs_finish",
    "plan_rootfs_parent",
    "plan_rootfs_pivot",
    "plan_rootfs_stage1",
]
