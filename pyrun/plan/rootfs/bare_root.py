"""Stage 1's part of the file system where the init's PID namespace is another's: all that takes the host's paths.

Whoever is in that namespace sees the init from its first moment, and with CAP_SYS_PTRACE may open its root, its
working directory and its descriptors, whatever dumpable says. So stage 1, which is not in there, makes the mount
namespace, clones the root and the sources of binds as mounts that are attached nowhere, and pivots to a tmpfs that has
nothing but /null in it, and devices where mknod(2) is refused. There the init is born. In a user namespace this can't
be: a procfs of its own takes one that is visible already (mount_too_revealing() in the kernel).
"""

from __future__ import annotations

from ...errors import ConfigError
from ..model.steps import (
    STAGE1,
    Fsconfig,
    Fsmount,
    Fsopen,
    MakeTarget,
    MoveMount,
    OpenTree,
    PivotRoot,
    Unshare,
)
from .binds import bind_source, tree_flags
from .dev_nodes import bound_nodes
from .file_systems import cgroup_source, makes_cgroup2
from .mount_entry import Entry
from .mount_options import NODEV, NOEXEC, NOSUID
from .rootfs_plan import AT_RECURSIVE, BY_FD, CMD_CREATE, FROM_FD, NULL, OPEN_TREE_CLONE, RootfsPlan, clean_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...oci.model import Spec
    from ..model.plan import Builder

NEWNS = 0x20000
_WHOLE = OPEN_TREE_CLONE | AT_RECURSIVE
_HINT = "the init is made without the host's files in sight, as it joins a PID namespace by path"


def plan_mount_namespace(b: Builder) -> None:
    """STAGE1, first of all: then nothing of it is seen by the host."""
    b.add(STAGE1, Unshare(flags=NEWNS, at="/linux/namespaces", why="by stage 1, which no container sees"))


def plan_bare_root(b: Builder, spec: Spec, rp: RootfsPlan) -> None:
    """STAGE1, in its own mount namespace, whose mounts propagate nowhere. ConfigError where a mount needs what only the
    init could have."""
    for index, mount in enumerate(spec.mounts):
        m = Entry(index, mount)
        if m.o.bind:
            _check_source(spec, m, rp)
            rp.clones[index] = b.slot(f"mount-{index}")
            clone = OpenTree(path=bind_source(m, rp), flags=tree_flags(m), out=rp.clones[index])
            clone.at, clone.why = f"{m.at}/source", "while the host's paths are there"
            b.add(STAGE1, clone)
        elif m.fstype == "cgroup2" and not makes_cgroup2(rp):
            rp.clones[index] = b.slot(f"mount-{index}")
            b.add(STAGE1, OpenTree(path=cgroup_source(rp), flags=_WHOLE, out=rp.clones[index], at=m.at))
        elif index not in rp.clones and m.fstype != "remount":
            _check_file_system(m)
    attrs = NOSUID | NODEV | NOEXEC
    b.add(
        STAGE1,
        Fsopen(fstype="tmpfs", out=rp.fs),
        Fsconfig(fs=rp.fs, cmd=CMD_CREATE),
        Fsmount(fs=rp.fs, attrs=attrs, out=rp.mount, why="where the init is born"),
        OpenTree(path="/dev/null", flags=OPEN_TREE_CLONE, out=rp.fs, why="all that it needs there: for masked paths"),
        MoveMount(mount=rp.mount, dst="/", flags=FROM_FD, why="first, as nothing goes into what is attached nowhere"),
        MakeTarget(root=rp.mount, path=NULL, mode=0o600, like=rp.fs, out=rp.target),
        MoveMount(mount=rp.fs, onto=rp.target, flags=BY_FD),
    )
    for node in bound_nodes(spec) if rp.bind_nodes else ():
        b.add(
            STAGE1,
            OpenTree(path=node.path, flags=OPEN_TREE_CLONE, out=rp.fs, at=node.at, why="for the init to bind"),
            MakeTarget(root=rp.mount, path=node.path, mode=0o600, like=rp.fs, out=rp.target),
            MoveMount(mount=rp.fs, onto=rp.target, flags=BY_FD),
        )
    pivot = PivotRoot(root=rp.mount)
    pivot.why = "the init has no way to the host's files, and so nobody has it through the init"
    b.add(STAGE1, pivot)


def _check_source(spec: Spec, m: Entry, rp: RootfsPlan) -> None:
    roots = (rp.rootfs, f"{rp.bundle}/{spec.root.path}", spec.root.path)
    source = f"{clean_path(bind_source(m, rp))}/"
    if any(source.startswith(f"{clean_path(root)}/") for root in roots if root):
        raise ConfigError([(f"{m.at}/source", "lies in the container's own root")], hint=_HINT)


def _check_file_system(m: Entry) -> None:
    """Those that are made of other files are made by the init."""
    named = [f"{m.at}/source"] if (m.spec.source or "").startswith("/") else []
    named += [f"{m.at}/options/{index}" for _, value, index in m.o.data if value and value.startswith("/")]
    if named:
        raise ConfigError([(at, f"a {m.fstype} of the host's files can't be mounted here") for at in named], hint=_HINT)
