"""What the planners of the container's file system share: the kernel's numbers, and RootfsPlan, which goes from one
to the next.
"""

from __future__ import annotations

from ...facts import CAP_MKNOD, CAP_SYS_ADMIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...facts import Facts
    from ...oci.model import Spec
    from ..model.overlay import Overlay
    from ..model.plan import Builder
    from ..model.steps import Step

NONE = 0xFFFF  # no slot
IDMAP_POINT = 5  # the rendezvous at which stage 2 hands a mount to the parent
NULL = "/null"  # the host's /dev/null in a bare root

# O_DIRECTORY and O_NOFOLLOW differ between architectures and are not needed: a slash at the end of a path wants a
# directory, and RESOLVE_NO_SYMLINKS is stricter.
O_PATH = 0o10000000

EPERM, ENOENT, EBADF, EACCES, EBUSY, EEXIST, ENOTDIR, EINVAL = 1, 2, 9, 13, 16, 17, 20, 22
RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH, RESOLVE_IN_ROOT = 1, 2, 4, 8, 16
IN_ROOT = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
AT_EMPTY_PATH, AT_RECURSIVE = 0x1000, 0x8000
OPEN_TREE_CLONE = 1
MNT_DETACH = 2
CLONE_FD = OPEN_TREE_CLONE | AT_EMPTY_PATH
BY_FD = 0x4 | 0x40  # MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
FROM_FD = 0x4
SET_FLAG, SET_STRING, SET_FD, CMD_CREATE = 0, 1, 5, 6  # FSCONFIG_*
PROC_SUPER_MAGIC, DEVPTS_SUPER_MAGIC = 0x9FA0, 0x1CD1
S_IFIFO, S_IFCHR, S_IFDIR, S_IFBLK = 0o010000, 0o020000, 0o040000, 0o060000


class RootfsPlan:
    """Slots and facts that hold for the whole file system.

    root: the container's root, the mount itself; every path in the container is resolved below it, before and after
    the pivot. dev: its /dev, opened when all mounts are there (NONE before, and without a mount namespace). proc: a
    procfs of the container's PID namespace that is mounted nowhere, else the host's; NONE when nothing needs it.
    target, mount, fs: scratch, for one step after another. clones: index of a mount -> slot of its source, cloned by
    the parent. brought: index of a mount -> its source's place in the root, where an earlier mount covers that. idmaps:
    (uid map, gid map) -> slot of a user namespace. late_ro: (slot, pointer) of mounts that become read-only at the end.
    mntns, own_userns, cgroupns: the container has such a namespace. cgroup, cgroup_mount: host paths of its cgroup and
    of the hierarchy. locked: mounts may have flags that we may not clear. bind_nodes: devices are bound from the host,
    as mknod(2) is refused. makes_nodes: the parent makes those of linux.devices; nodes: path of one -> its step, in
    node_mount. parent_mounts: the parent may clone mounts for a container that may not walk to them.
    overlay: the root is made out of layers. late_overlays: (pointer, layers, slot) of mounts that stage 1 makes. bare:
    stage 1 opens what is the host's (bare_root.py).
    """

    __slots__ = (
        "bare",
        "bind_nodes",
        "brought",
        "bundle",
        "cgroup",
        "cgroup_mount",
        "cgroupns",
        "clones",
        "dev",
        "fs",
        "idmaps",
        "kernel",
        "label",
        "late_overlays",
        "late_ro",
        "locked",
        "makes_nodes",
        "mntns",
        "mount",
        "node_mount",
        "nodes",
        "overlay",
        "own_userns",
        "parent_mounts",
        "proc",
        "root",
        "rootfs",
        "target",
    )

    def __init__(
        self,
        b: Builder,
        spec: Spec,
        facts: Facts,
        rootfs: str,
        bundle: str,
        cgroup: str | None,
        overlay: Overlay | None = None,
    ) -> None:
        kinds = {ns.type for ns in spec.linux.namespaces} if spec.linux else set()
        self.mntns = "mount" in kinds
        self.own_userns = "user" in kinds
        self.cgroupns = "cgroup" in kinds
        self.rootfs = rootfs
        self.bundle = bundle
        self.cgroup = cgroup
        self.cgroup_mount = facts.cgroup_mount
        self.kernel = facts.kernel
        self.label = spec.linux.mount_label if spec.linux else None
        self.locked = self.own_userns or facts.in_userns
        self.bind_nodes = binds_nodes(spec, facts)
        self.parent_mounts = self.own_userns and facts.has_cap(CAP_SYS_ADMIN)
        own = self.parent_mounts and facts.has_cap(CAP_MKNOD)
        self.makes_nodes = own and not (facts.in_userns or facts.rootless)
        self.bare = is_bare(spec, facts)
        self.overlay = overlay
        self.root = b.slot("root", inherit=(self.parent_mounts or overlay is not None) and self.mntns)
        self.target, self.mount, self.fs = b.slot("target"), b.slot("mount"), b.slot("fs")
        self.dev = self.proc = self.node_mount = NONE
        self.nodes: dict[str, Step] = {}
        self.clones: dict[int, int] = {}
        self.brought: dict[int, str] = {}
        self.idmaps: dict[tuple[str, str], int] = {}
        self.late_ro: list[tuple[int, str]] = []
        self.late_overlays: list[tuple[str, Overlay, int]] = []


def binds_nodes(spec: Spec, facts: Facts) -> bool:
    locked = facts.in_userns or any(ns.type == "user" for ns in (spec.linux.namespaces if spec.linux else ()))
    return locked or facts.rootless or not facts.has_cap(CAP_MKNOD)


def is_bare(spec: Spec, facts: Facts) -> bool:
    """Whether others see the init from its first moment, and it can do without the host's files. createContainer hooks
    can't: they run in the container's namespaces, and are found by the host's paths (config.md, createContainer
    Hooks)."""
    paths = {ns.type: ns.path for ns in spec.linux.namespaces} if spec.linux else {}
    joined = paths.get("pid") is not None and paths.get("mount", "") is None
    locked = "user" in paths or facts.in_userns or facts.rootless  # see bare_root.py
    return joined and not locked and not (spec.hooks and spec.hooks.create_container)


def clean_path(path: str) -> str:
    """The path from "/", without empty parts, "." and "..", which stops at the root."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if parts:
                parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)
