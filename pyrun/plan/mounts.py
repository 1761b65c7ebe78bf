"""The mounts of config.json, each a few steps: make or open the source, open the target, attach.

A mount is complete before it is attached: what a container can see has its flags and its propagation from the first moment. Sources of binds are
host paths; targets are walked below the root's descriptor with openat2(2), made where they are missing, and kept as a descriptor on which the
mount is put; so a name that someone exchanges meanwhile leads nowhere else (CVE-2021-30465, CVE-2024-45310). /proc and /sys are never
reached through a symlink, and nothing but a procfs comes on /proc or into it (CVE-2019-16884, CVE-2019-19921, CVE-2023-27561).

Slots are used again by the next mount, so 10,000 mounts need the descriptors of one.
"""

from __future__ import annotations

from ..errors import ConfigError, PyrunError
from .mount_options import (
    ATIME,
    BIND_FLAGS,
    IDMAP,
    MS_PRIVATE,
    MS_SLAVE,
    NOSYMFOLLOW,
    RDONLY,
    MountOptions,
    parse_options,
)
from .rootfs_plan import (
    AT_EMPTY_PATH,
    AT_RECURSIVE,
    BY_FD,
    CLONE_FD,
    CMD_CREATE,
    EACCES,
    EBADF,
    EBUSY,
    EINVAL,
    EPERM,
    IN_ROOT,
    NONE,
    O_PATH,
    OPEN_TREE_CLONE,
    PROC_SUPER_MAGIC,
    RESOLVE_NO_SYMLINKS,
    SET_FLAG,
    SET_STRING,
    RootfsPlan,
    clean_path,
)
from .steps import ANY as ANY_ERRNO
from .steps import (
    PARENT,
    STAGE2,
    CheckFs,
    CopyUp,
    Fsconfig,
    Fsmount,
    Fsopen,
    Goto,
    Label,
    MakeTarget,
    MakeUserns,
    Mount,
    MountSetattr,
    MoveMount,
    Openat2,
    OpenTree,
    TmpfsMode,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..oci import model
    from .model import Builder
    from .steps import Step

MAX_CLONES = 200  # descriptors that the parent opens for binds; the rest the container must be able to walk to
LONGEST = 255  # bytes of a string that fsconfig(2) takes
# lxcfs and the like put files over these; all else in /proc is the kernel's word (runc's list).
PROC_FILES = {f"/proc/{name}" for name in (
    "cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo", "sys/kernel/ns_last_pid", "sys/crypto/fips_enabled",
)}  # fmt: skip
# Their superblock is not the mount's own, or has nothing to write back: read-only is a matter of the mount alone. A superblock of
# sysfs belongs to the network namespace, and with it all containers of a pod would have to be read-only.
_RO_BY_MOUNT = ("proc", "sysfs", "cgroup2", "mqueue", "devpts", "tmpfs", "ramfs", "bpf", "binfmt_misc")
_NO_LABEL = ("proc", "sysfs", "mqueue", "cgroup2")


class _Mount:
    """One entry: index, its pointer, the values, the options, the clean destination, the file system's type."""

    __slots__ = ("at", "dest", "fstype", "index", "o", "spec")

    def __init__(self, index: int, mount: model.Mount) -> None:
        self.index = index
        self.at = f"/mounts/{index}"
        self.spec = mount
        self.o = parse_options(mount.options)
        self.dest = clean_path(mount.destination)
        self.fstype = mount.type or ""
        if self.o.bind or self.fstype == "bind":
            self.o.bind, self.fstype = True, "bind"
        elif self.fstype == "cgroup":
            self.fstype = "cgroup2"


def is_bind_of_dev(mount: model.Mount) -> bool:
    """The host's or another container's /dev: it has its devices and must not be touched."""
    if clean_path(mount.destination) != "/dev":
        return False
    return mount.type == "bind" or "bind" in mount.options or "rbind" in mount.options


# --- the parent's part -----------------------------------------------------------------------------------------------


def plan_mounts_parent(b: Builder, spec: model.Spec, rp: RootfsPlan, proc: int) -> None:
    """What stage 2 can't do by itself: user namespaces for idmaps, and in a user namespace of its own the clones of sources."""
    for index, mount in enumerate(spec.mounts):
        m = _Mount(index, mount)
        idmap = m.o.idmap or mount.uid_mappings
        if idmap:
            _check_idmap(m, rp)
            _idmap_userns(b, spec, rp, m, proc)
        if m.o.bind and rp.parent_mounts and (idmap or len(rp.clones) < MAX_CLONES):
            _clone_source(b, spec, rp, m)


def _clone_source(b: Builder, spec: model.Spec, rp: RootfsPlan, m: _Mount) -> None:
    slot = rp.clones[m.index] = b.slot(f"mount-{m.index}", inherit=True)
    nested = (
        (EPERM, None),
    )  # the mount namespace is not our user namespace's: stage 2 has to find the source by itself
    b.add(
        PARENT,
        OpenTree(
            path=_source(m, rp),
            flags=_tree_flags(m),
            out=slot,
            on=nested,
            at=m.at,
            why="for a container that may not walk there",
        ),
    )
    if m.o.idmap or m.spec.uid_mappings:
        _add_idmap(b, PARENT, spec, rp, m, slot)
    b.add(
        PARENT,
        MountSetattr(
            mount=slot,
            at_flags=AT_EMPTY_PATH | AT_RECURSIVE,
            propagation=MS_SLAVE,
            on=((EBADF, None),),
            at=m.at,
            why="what the container mounts there does not reach the host",
        ),
    )


def _check_idmap(m: _Mount, rp: RootfsPlan) -> None:
    if rp.locked and not rp.parent_mounts:
        raise ConfigError(
            [(m.at, "an idmapped mount needs privilege over the file system, which a rootless runtime has not")],
            hint="run pyrun as root, or drop idmap and the mappings",
        )


def _maps(spec: model.Spec, m: _Mount) -> tuple[str, str]:
    """uid_map and gid_map of the mount, or the container's; both empty: those of the user namespace it joins."""
    uids, gids = m.spec.uid_mappings, m.spec.gid_mappings
    if not uids and spec.linux:
        uids, gids = spec.linux.uid_mappings, spec.linux.gid_mappings
    return _map_text(uids), _map_text(gids)


def _map_text(mappings: tuple[model.IdMapping, ...]) -> str:
    return "".join(f"{i.container_id} {i.host_id} {i.size}\n" for i in mappings)


def _idmap_userns(b: Builder, spec: model.Spec, rp: RootfsPlan, m: _Mount, proc: int) -> None:
    """A user namespace for these maps, shared by all mounts that have the same."""
    maps = _maps(spec, m)
    if maps in rp.idmaps:
        return
    slot = rp.idmaps[maps] = b.slot(f"idmap-{len(rp.idmaps)}", inherit=not rp.parent_mounts)
    if maps[0]:
        b.add(
            PARENT,
            MakeUserns(
                proc=proc,
                uid_map=maps[0],
                gid_map=maps[1],
                out=slot,
                at=f"{m.at}/uidMappings",
                why="holds the mount's mappings",
            ),
        )
        return
    paths = [ns.path for ns in spec.linux.namespaces if ns.type == "user" and ns.path] if spec.linux else []
    if not paths:
        raise ConfigError([(m.at, "idmap needs uidMappings and gidMappings, or a user namespace whose it could take")])
    b.add(
        PARENT,
        Openat2(path=paths[0], flags=0, out=slot, at=m.at, why="the user namespace whose mappings the mount takes"),
    )


def _add_idmap(b: Builder, lane: int, spec: model.Spec, rp: RootfsPlan, m: _Mount, slot: int) -> None:
    whole = AT_RECURSIVE if m.o.idmap == 2 else 0
    b.add(
        lane,
        MountSetattr(
            mount=slot,
            at_flags=AT_EMPTY_PATH | whole,
            set=IDMAP,
            userns=rp.idmaps[_maps(spec, m)],
            at=m.at,
            why="owners as the mappings show them",
        ),
    )


# --- stage 2 ---------------------------------------------------------------------------------------------------------


def plan_mounts(b: Builder, spec: model.Spec, rp: RootfsPlan) -> None:
    """All mounts in the order of config.json, which is the spec's rule; nothing sorts them."""
    for index, mount in enumerate(spec.mounts):
        m = _Mount(index, mount)
        if m.o.bind:
            _bind(b, spec, rp, m)
        elif not m.fstype:
            raise ConfigError([(f"{m.at}/type", "is missing, and the options have neither bind nor rbind")])
        elif m.fstype == "cgroup2":
            _cgroup(b, spec, rp, m)
        elif (
            m.o.iversion or m.o.remount or any(value and len(value.encode()) > LONGEST for _, value, _ in _data(m, rp))
        ):
            _by_mount2(b, rp, m)
        else:
            _file_system(b, spec, rp, m)


def _target(b: Builder, rp: RootfsPlan, m: _Mount, like: int = NONE) -> None:
    """Opens the destination, with what must not be there refused: by name now, and by descriptor when it runs."""
    forbid, resolve = PROC_SUPER_MAGIC, 0
    if m.dest == "/":
        raise ConfigError(
            [(f"{m.at}/destination", "nothing can be mounted on the root itself")], hint="root.path names the root"
        )
    if m.dest == "/proc":
        if m.fstype not in ("proc", "bind"):
            raise ConfigError([(f"{m.at}/destination", f"only a procfs may be mounted on /proc, not {m.fstype}")])
        forbid, resolve = 0, RESOLVE_NO_SYMLINKS
    elif m.dest.startswith("/proc/"):
        if m.dest not in PROC_FILES:
            raise ConfigError([(f"{m.at}/destination", f"{m.dest} is inside /proc, where nothing may be mounted")])
        forbid, resolve = 0, RESOLVE_NO_SYMLINKS
    elif m.fstype in ("proc", "sysfs"):
        resolve = RESOLVE_NO_SYMLINKS
    b.add(
        STAGE2,
        MakeTarget(
            root=rp.root,
            path=m.dest,
            like=like,
            mode=0o755,
            forbid=forbid,
            resolve=resolve,
            mount=1,
            out=rp.target,
            at=f"{m.at}/destination",
            why="made if missing",
        ),
    )


def _attach(b: Builder, rp: RootfsPlan, m: _Mount, slot: int) -> None:
    b.add(STAGE2, MoveMount(mount=slot, onto=rp.target, flags=BY_FD, at=m.at, why=f"{m.fstype} on {m.dest}"))


def _setattr(slot: int, m: _Mount, why: str, **args: object) -> Step:
    return MountSetattr(mount=slot, at=f"{m.at}/options", why=why, **{"at_flags": AT_EMPTY_PATH, **args})


def _propagation(b: Builder, m: _Mount, slot: int, kinds: list[tuple[int, bool]]) -> None:
    for kind, recursive in kinds:
        flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
        b.add(STAGE2, _setattr(slot, m, "its propagation", at_flags=flags, propagation=kind))


def _recursive_attrs(b: Builder, m: _Mount, slot: int) -> None:
    if m.o.rec_set or m.o.rec_clear:
        flags = AT_EMPTY_PATH | AT_RECURSIVE
        b.add(
            STAGE2,
            _setattr(slot, m, "for it and all mounts below", at_flags=flags, set=m.o.rec_set, clear=m.o.rec_clear),
        )


# --- binds -----------------------------------------------------------------------------------------------------------


def _source(m: _Mount, rp: RootfsPlan) -> str:
    if not m.spec.source:
        raise ConfigError([(f"{m.at}/source", "is missing, and a bind mount needs it")])
    if m.spec.source.startswith("/"):
        return m.spec.source
    if not rp.bundle:
        raise PyrunError(
            f"the bundle's directory is not known, and {m.spec.source} is relative to it", pointer=f"{m.at}/source"
        )
    return f"{rp.bundle}/{m.spec.source}"


def _tree_flags(m: _Mount) -> int:
    return OPEN_TREE_CLONE | (AT_RECURSIVE if m.o.recursive else 0)


def _bind(b: Builder, spec: model.Spec, rp: RootfsPlan, m: _Mount) -> None:
    if m.o.data:
        raise ConfigError(
            [(f"{m.at}/options/{index}", f"{key} is not an option of a bind mount") for key, _, index in m.o.data]
        )
    slot, idmap = rp.clones.get(m.index, rp.mount), m.o.idmap or m.spec.uid_mappings
    if slot == rp.mount or not idmap:
        # What the parent cloned stays for a source that we may not walk to, or that has locked mounts below it.
        rules = () if slot == rp.mount else ((EACCES, None), (EINVAL, None))
        b.add(
            STAGE2,
            OpenTree(
                path=_source(m, rp),
                flags=_tree_flags(m),
                out=slot,
                on=rules,
                at=f"{m.at}/source",
                why="a mount of its own",
            ),
        )
    if idmap and slot == rp.mount:
        _add_idmap(b, STAGE2, spec, rp, m, slot)
    _bind_attrs(b, rp, m, slot)
    if m.dest == "/proc":
        b.add(
            STAGE2,
            CheckFs(fd=slot, magic=PROC_SUPER_MAGIC, at=m.at, why="nothing but a procfs on /proc (CVE-2019-19921)"),
        )
    _target(b, rp, m, like=slot)
    _attach(b, rp, m, slot)


def _bind_attrs(b: Builder, rp: RootfsPlan, m: _Mount, slot: int) -> None:
    """Flags and propagation, in as few calls as they take.

    An option that sets or clears a flag means all flags: those not named are cleared (as runc and mount --bind -o do), unless the
    kernel locks them, as it does for a user namespace with what it inherited; then they stay, but for one that was asked to go.
    """
    o = m.o
    atime = 0 if o.atime is None else ATIME
    wanted, unwanted, rest = o.attrs(), o.clear | atime, BIND_FLAGS & ~(o.set | o.clear) if o.flagged else 0
    if not rp.locked:
        unwanted, rest = unwanted | rest, 0
    kinds = o.propagation or [(MS_PRIVATE, True)]
    args: dict[str, object] = {}
    if not o.recursive or not (wanted or unwanted) or not kinds[0][1]:
        whole = AT_RECURSIVE if o.recursive and kinds[0][1] else 0
        args = {"propagation": kinds[0][0], "at_flags": AT_EMPTY_PATH | whole}
        kinds = kinds[1:]
    if wanted:
        args["set"] = wanted
    if unwanted:
        args["clear"] = unwanted
    b.add(STAGE2, _setattr(slot, m, "its flags" if wanted or unwanted else "its propagation", **args))
    _propagation(b, m, slot, kinds)
    if rest:
        b.add(
            STAGE2,
            _setattr(slot, m, "flags that were not named go, but for locked ones", clear=rest, on=((EPERM, None),)),
        )
    _recursive_attrs(b, m, slot)


# --- file systems ----------------------------------------------------------------------------------------------------


def _data(m: _Mount, rp: RootfsPlan) -> list[tuple[str, str | None, int]]:
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
    out: list[tuple[str, str | None, int]] = []
    data_only, word, i = False, "", 0
    for i, c in enumerate(value + ":"):
        if c != ":" or (i and value[i - 1] == "\\"):
            word += c
        elif word:
            plain = word.replace("\\:", ":").replace("\\,", ",").replace("\\\\", "\\")
            out.append(("datadir+" if data_only else "lowerdir+", plain, index))
            data_only, word = False, ""
        else:
            data_only = True
    return out


def _optional_gid(spec: model.Spec, rp: RootfsPlan, m: _Mount, key: str, value: str | None) -> bool:
    """devpts' usual gid=5 in a user namespace that has no group 5: the kernel refuses it, and terminals work without."""
    if m.fstype != "devpts" or key != "gid" or not rp.locked:
        return False
    maps = spec.linux.gid_mappings if spec.linux else ()
    known = value is not None and value.isdigit()
    return not (known and any(i.container_id <= int(value or 0) < i.container_id + i.size for i in maps))


def _file_system(b: Builder, spec: model.Spec, rp: RootfsPlan, m: _Mount) -> None:
    _target(b, rp, m)
    attrs = _configure(b, spec, rp, m)
    b.add(STAGE2, Fsmount(fs=rp.fs, attrs=attrs, out=rp.mount, at=m.at, why="mounted, but nowhere yet"))
    if m.o.idmap or m.spec.uid_mappings:
        _add_idmap_here(b, spec, rp, m)
    _recursive_attrs(b, m, rp.mount)
    _propagation(b, m, rp.mount, m.o.propagation)
    if m.o.copyup and m.fstype == "tmpfs":
        keep = int(any(key in ("mode", "uid", "gid") for key, _, _ in m.o.data))
        b.add(STAGE2, CopyUp(hidden=rp.target, mount=rp.mount, keep_root=keep, at=f"{m.at}/options", why="tmpcopyup"))
    _attach(b, rp, m, rp.mount)


def _add_idmap_here(b: Builder, spec: model.Spec, rp: RootfsPlan, m: _Mount) -> None:
    if rp.parent_mounts:
        raise ConfigError([(m.at, "idmap on a mount that is no bind works only without a user namespace")])
    _add_idmap(b, STAGE2, spec, rp, m, rp.mount)


def _configure(b: Builder, spec: model.Spec, rp: RootfsPlan, m: _Mount) -> int:
    """The file system up to its superblock. Returns the attributes that the mount gets now."""
    attrs, super_flags, late = m.o.attrs(), list(m.o.super), False
    if attrs & RDONLY:
        late = m.fstype == "tmpfs" or m.dest == "/dev"
        if late:  # later mounts, and devices, need their places made in it
            attrs &= ~RDONLY
            rp.late_ro.append((m.dest, f"{m.at}/options"))
        elif m.fstype not in _RO_BY_MOUNT:
            super_flags.append("ro")
    b.add(STAGE2, Fsopen(fstype=m.fstype, out=rp.fs, at=f"{m.at}/type"))
    if m.spec.source:
        b.add(STAGE2, Fsconfig(fs=rp.fs, cmd=SET_STRING, key="source", value=m.spec.source, at=f"{m.at}/source"))
    b.add(STAGE2, *(Fsconfig(fs=rp.fs, cmd=SET_FLAG, key=name, at=f"{m.at}/options") for name in super_flags))
    data = _data(m, rp)
    if m.fstype == "tmpfs" and not any(key == "mode" for key, _, _ in data):
        b.add(STAGE2, TmpfsMode(fs=rp.fs, hidden=rp.target, at=m.at, why="the mode of the directory that it hides"))
    for key, value, index in data:
        at = "/linux/mountLabel" if index < 0 else f"{m.at}/options/{index}"
        if value is None:
            b.add(STAGE2, Fsconfig(fs=rp.fs, cmd=SET_FLAG, key=key, at=at))
        else:
            rules = ((EINVAL, None),) if _optional_gid(spec, rp, m, key, value) else ()
            b.add(STAGE2, Fsconfig(fs=rp.fs, cmd=SET_STRING, key=key, value=value, on=rules, at=at))
    b.add(STAGE2, Fsconfig(fs=rp.fs, cmd=CMD_CREATE, at=m.at, why=f"makes the {m.fstype}"))
    return attrs


def _by_mount2(b: Builder, rp: RootfsPlan, m: _Mount) -> None:
    """mount(2) on the target's descriptor, for the few things that fsconfig(2) does not take. Then its top is opened for the rest."""
    _target(b, rp, m)
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
        _recursive_attrs(b, m, rp.mount)
        _propagation(b, m, rp.mount, o.propagation)


def _data_raw(m: _Mount, rp: RootfsPlan) -> list[tuple[str, str | None, int]]:
    label = [("context", rp.label, -1)] if rp.label and m.fstype not in _NO_LABEL else []
    return [*m.o.data, *label]


# --- cgroup ----------------------------------------------------------------------------------------------------------


def _cgroup(b: Builder, spec: model.Spec, rp: RootfsPlan, m: _Mount) -> None:
    """cgroup2 of the container's cgroup namespace. Without one it is the host's hierarchy, bound, as a new mount of it would reset
    the options of the host's own; and never writable where we are not root (CVE-2023-25809)."""
    o, attach = m.o, Label("attach")
    own = o.attrs()
    bound = own | RDONLY if rp.locked else own
    _target(b, rp, m)
    if rp.cgroupns or rp.cgroup_mount is None:
        joined = Label("not ours")
        rules = ((EPERM, joined), (EBUSY, joined))
        b.add(STAGE2, Fsopen(fstype="cgroup2", out=rp.fs, at=f"{m.at}/type", on=rules))
        b.add(
            STAGE2,
            *(
                Fsconfig(
                    fs=rp.fs,
                    cmd=SET_FLAG if value is None else SET_STRING,
                    key=key,
                    at=f"{m.at}/options/{index}",
                    **({} if value is None else {"value": value}),
                )
                for key, value, index in o.data
            ),
        )
        b.add(
            STAGE2,
            Fsconfig(fs=rp.fs, cmd=CMD_CREATE, at=m.at, on=rules, why="the container's cgroup is its root"),
            Fsmount(fs=rp.fs, attrs=own, out=rp.mount, at=m.at, on=rules),
            Goto(on=((ANY_ERRNO, attach),)),
            joined,
        )
    source = (rp.cgroup if rp.cgroupns else None) or rp.cgroup_mount or "/sys/fs/cgroup"
    flags = OPEN_TREE_CLONE | AT_RECURSIVE
    b.add(
        STAGE2,
        OpenTree(
            path=source, flags=flags, out=rp.mount, at=m.at, why="bound: its cgroup namespace is not the container's"
        ),
        _setattr(
            rp.mount,
            m,
            "never writable (CVE-2023-25809)" if bound != own else "its flags",
            at_flags=AT_EMPTY_PATH | AT_RECURSIVE,
            set=bound,
            clear=ATIME if o.atime is not None else 0,
            propagation=MS_PRIVATE,
        ),
        attach,
    )
    _recursive_attrs(b, m, rp.mount)
    _propagation(b, m, rp.mount, o.propagation)
    _attach(b, rp, m, rp.mount)


__all__ = ["CLONE_FD", "is_bind_of_dev", "plan_mounts", "plan_mounts_parent"]
