"""Mounts that make a file system: fsopen(2), its parameters one by one, fsmount(2), and then the target.

Each parameter is a step, so an error names the option that the file system does not take. What fsconfig(2) can't say
goes by mount(2). cgroup is always version 2.
"""

from __future__ import annotations

from ...errors import ConfigError
from ..model.steps import (
    ANY,
    STAGE2,
    CopyUp,
    Fsconfig,
    Fsmount,
    Fsopen,
    Goto,
    Label,
    Mount,
    Openat2,
    OpenTree,
    Setxattr,
    TmpfsMode,
)
from .mount_entry import (
    Entry,
    add_idmap,
    attach,
    open_target,
    set_propagation,
    set_recursive_attrs,
    setattr_step,
)
from .mount_options import (
    ATIME,
    MS_PRIVATE,
    NOSYMFOLLOW,
    RDONLY,
    MountOptions,
)
from .rootfs_plan import (
    AT_EMPTY_PATH,
    AT_RECURSIVE,
    CMD_CREATE,
    EBUSY,
    EINVAL,
    EPERM,
    IN_ROOT,
    O_PATH,
    OPEN_TREE_CLONE,
    SET_FLAG,
    SET_STRING,
    RootfsPlan,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...oci import model
    from ..model.plan import Builder

LONGEST = 255  # bytes of a string that fsconfig(2) takes
# Their superblock is not the mount's own, or has nothing to write back: read-only is a matter of the mount alone. A
# superblock of sysfs belongs to the network namespace, and with it all containers of a pod would have to be
# read-only.
_RO_BY_MOUNT = ("proc", "sysfs", "cgroup2", "mqueue", "devpts", "tmpfs", "ramfs", "bpf", "binfmt_misc")
_NO_LABEL = ("proc", "sysfs", "mqueue", "cgroup2")


def data_of(m: Entry, rp: RootfsPlan) -> list[tuple[str, str | None, int]]:
    """The data with the SELinux label, and overlay's layers one by one where the kernel can take them so."""
    data = list(m.o.data)
    if rp.label and m.fstype not in _NO_LABEL and not any(key.endswith("context") for key, _, _ in data):
        data.append(("context", rp.label, -1))
    if m.fstype == "overlay" and rp.kernel >= (6, 8):
        return [layer for item in data for layer in _layers(item)]
    return data


def _layers(item: tuple[str, str | None, int]) -> list[tuple[str, str | None, int]]:
    key, value, index = item
    if key != "lowerdir" or not value or len(value.encode()) <= LONGEST:
        return [item]
    return [(kind, path, index) for kind, path in split_layers(value)]


def split_layers(value: str) -> list[tuple[str, str]]:
    """The paths of lowerdir=, topmost first, each with the parameter that takes one."""
    out: list[tuple[str, str]] = []
    data_only, word, i = False, "", 0
    for i, c in enumerate(value + ":"):
        if c != ":" or (i and value[i - 1] == "\\"):
            word += c
        elif word:
            plain = word.replace("\\:", ":").replace("\\,", ",").replace("\\\\", "\\")
            out.append(("datadir+" if data_only else "lowerdir+", plain))
            data_only, word = False, ""
        else:
            data_only = True
    return out


def _optional_gid(spec: model.Spec, rp: RootfsPlan, m: Entry, key: str, value: str | None) -> bool:
    """devpts' usual gid=5 in a user namespace that has no group 5: terminals work without. The kernel refuses it,
    Linux 6.1 only when the file system is made; so where the maps are known it is left out."""
    if m.fstype != "devpts" or key != "gid" or not rp.locked:
        return False
    maps = spec.linux.gid_mappings if spec.linux else ()
    known = value is not None and value.isdigit()
    return not (known and any(i.container_id <= int(value or 0) < i.container_id + i.size for i in maps))


def needs_mount2(m: Entry, rp: RootfsPlan) -> bool:
    too_long = any(value and len(value.encode()) > LONGEST for _, value, _ in data_of(m, rp))
    return too_long or m.o.iversion or m.o.remount or len(m.spec.source or "") > LONGEST


def plan_file_system(b: Builder, spec: model.Spec, rp: RootfsPlan, m: Entry) -> None:
    open_target(b, rp, m)
    attrs, mount = _configure(b, spec, rp, m), rp.mount
    if attrs != m.o.attrs():
        mount = b.slot(f"mount-{m.index}")
        rp.late_ro.append((mount, f"{m.at}/options"))
    b.add(STAGE2, Fsmount(fs=rp.fs, attrs=attrs, out=mount, at=m.at, why="mounted, but nowhere yet"))
    if m.o.idmap or m.spec.uid_mappings:
        _add_idmap_here(b, spec, rp, m, mount)
    if rp.label and m.fstype == "mqueue" and not attrs & RDONLY:
        why = "an mqueue takes no context="
        b.add(STAGE2, Setxattr(fd=mount, name="security.selinux", value=rp.label, at="/linux/mountLabel", why=why))
    set_recursive_attrs(b, m, mount)
    set_propagation(b, m, mount, m.o.propagation)
    if m.o.copyup and m.fstype == "tmpfs":
        keep = int(any(key in ("mode", "uid", "gid") for key, _, _ in m.o.data))
        b.add(STAGE2, CopyUp(hidden=rp.target, mount=mount, keep_root=keep, at=f"{m.at}/options", why="tmpcopyup"))
    attach(b, rp, m, mount)


def _add_idmap_here(b: Builder, spec: model.Spec, rp: RootfsPlan, m: Entry, mount: int) -> None:
    if rp.parent_mounts:
        raise ConfigError([(m.at, "idmap on a mount that is no bind works only without a user namespace")])
    add_idmap(b, STAGE2, spec, rp, m, mount)


def _configure(b: Builder, spec: model.Spec, rp: RootfsPlan, m: Entry) -> int:
    """The file system up to its superblock. Returns the attributes that the mount gets now."""
    attrs, super_flags = m.o.attrs(), list(m.o.super)
    if attrs & RDONLY:
        if m.fstype == "tmpfs" or m.dest == "/dev":  # later mounts, and devices, need their places made in it
            attrs &= ~RDONLY
        elif m.fstype not in _RO_BY_MOUNT:
            super_flags.append("ro")
    b.add(STAGE2, Fsopen(fstype=m.fstype, out=rp.fs, at=f"{m.at}/type"))
    if m.spec.source:
        b.add(STAGE2, Fsconfig(fs=rp.fs, cmd=SET_STRING, key="source", value=m.spec.source, at=f"{m.at}/source"))
    b.add(STAGE2, *(Fsconfig(fs=rp.fs, cmd=SET_FLAG, key=name, at=f"{m.at}/options") for name in super_flags))
    data = data_of(m, rp)
    if m.fstype == "tmpfs" and not any(key == "mode" for key, _, _ in data):
        b.add(STAGE2, TmpfsMode(fs=rp.fs, hidden=rp.target, at=m.at, why="the mode of the directory that it hides"))
    for key, value, index in data:
        at = "/linux/mountLabel" if index < 0 else f"{m.at}/options/{index}"
        step = _parameter(rp, key, value, at)
        if _optional_gid(spec, rp, m, key, value):
            if spec.linux and spec.linux.gid_mappings:
                continue
            step.on = ((EINVAL, None),)  # terminals have the group of who opens them then
        b.add(STAGE2, step)
    b.add(STAGE2, Fsconfig(fs=rp.fs, cmd=CMD_CREATE, at=m.at, why=f"makes the {m.fstype}"))
    return attrs


def _parameter(rp: RootfsPlan, key: str, value: str | None, at: str) -> Fsconfig:
    if value is None:
        return Fsconfig(fs=rp.fs, cmd=SET_FLAG, key=key, at=at)
    return Fsconfig(fs=rp.fs, cmd=SET_STRING, key=key, value=value, at=at)


def plan_by_mount2(b: Builder, rp: RootfsPlan, m: Entry) -> None:
    """mount(2) on the target's descriptor, for the few things that fsconfig(2) does not take. Then its top is opened
    for the rest.
    """
    open_target(b, rp, m)
    o = m.o
    data = MountOptions()
    data.data = [(key, f'"{value}"' if index < 0 else value, index) for key, value, index in _data_raw(m, rp)]
    b.add(
        STAGE2,
        Mount(
            onto=rp.target,
            fstype=m.fstype,
            source=m.spec.source or m.fstype,
            data=data.ms_data(),
            flags=o.ms_flags(),
            at=m.at,
            why="fsconfig(2) has no way to say this",
        ),
    )
    if o.propagation or o.rec_set or o.rec_clear or o.set & NOSYMFOLLOW:
        b.add(
            STAGE2,
            Openat2(
                dir=rp.root, path=m.dest, flags=O_PATH, resolve=IN_ROOT, out=rp.mount, at=m.at, why="what was mounted"
            ),
        )
        set_recursive_attrs(b, m, rp.mount)
        set_propagation(b, m, rp.mount, o.propagation)


def _data_raw(m: Entry, rp: RootfsPlan) -> list[tuple[str, str | None, int]]:
    label = [("context", rp.label, -1)] if rp.label and m.fstype not in _NO_LABEL else []
    return [*m.o.data, *label]


def makes_cgroup2(rp: RootfsPlan) -> bool:
    """Whether a cgroup2 is mounted anew, and not the host's bound."""
    return rp.cgroupns or rp.cgroup_mount is None


def cgroup_source(rp: RootfsPlan) -> str:
    """What is bound where none can be mounted."""
    return (rp.cgroup if rp.cgroupns else None) or rp.cgroup_mount or "/sys/fs/cgroup"


def plan_cgroup_mount(b: Builder, spec: model.Spec, rp: RootfsPlan, m: Entry) -> None:
    """cgroup2 of the container's cgroup namespace. Without one it is the host's hierarchy, bound, as a new mount of
    it would reset the options of the host's own; and never writable where we are not root (CVE-2023-25809).
    """
    o, ready = m.o, Label("attach")
    own = o.attrs()
    bound = own | RDONLY if rp.locked else own
    open_target(b, rp, m)
    mount = rp.mount if makes_cgroup2(rp) else rp.clones.get(m.index, rp.mount)
    if makes_cgroup2(rp):
        joined = Label("not ours")
        # The bind shows more of the hierarchy, so it is read-only: without a user namespace it need not stand in.
        rules = ((EPERM, joined), (EBUSY, joined)) if rp.locked else ()
        b.add(STAGE2, Fsopen(fstype="cgroup2", out=rp.fs, at=f"{m.at}/type", on=rules))
        b.add(
            STAGE2,
            *(_parameter(rp, key, value, f"{m.at}/options/{index}") for key, value, index in o.data),
        )
        b.add(
            STAGE2,
            Fsconfig(fs=rp.fs, cmd=CMD_CREATE, at=m.at, on=rules, why="the container's cgroup is its root"),
            Fsmount(fs=rp.fs, attrs=own, out=rp.mount, at=m.at, on=rules),
            Goto(on=((ANY, ready),)),
            joined,
        )
    if mount == rp.mount:
        why = "bound: its cgroup namespace is not the container's"
        b.add(
            STAGE2,
            OpenTree(path=cgroup_source(rp), flags=OPEN_TREE_CLONE | AT_RECURSIVE, out=rp.mount, at=m.at, why=why),
        )
    b.add(
        STAGE2,
        setattr_step(
            mount,
            m,
            "never writable (CVE-2023-25809)" if bound != own else "its flags",
            at_flags=AT_EMPTY_PATH | AT_RECURSIVE,
            set=bound,
            clear=ATIME if o.atime is not None else 0,
            propagation=MS_PRIVATE,
        ),
        ready,
    )
    set_recursive_attrs(b, m, mount)
    set_propagation(b, m, mount, o.propagation)
    attach(b, rp, m, mount)
