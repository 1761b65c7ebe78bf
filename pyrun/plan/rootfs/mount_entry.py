"""One entry of /mounts and the steps that every kind of mount has: the target, idmaps, propagation, attachment.

Targets are walked below the root's descriptor with openat2(2), made where they are missing, and kept as a descriptor on
which the mount is put; so a name that someone exchanges meanwhile leads nowhere else (CVE-2021-30465, CVE-2024-45310).
/proc and /sys are never reached through a symlink, and nothing but a procfs comes on /proc or into it (CVE-2019-16884,
CVE-2019-19921, CVE-2023-27561).
"""

from __future__ import annotations

from ...errors import ConfigError
from ..model.steps import (
    STAGE2,
    MakeTarget,
    MountSetattr,
    MoveMount,
)
from .mount_options import (
    IDMAP,
    parse_options,
)
from .rootfs_plan import (
    AT_EMPTY_PATH,
    AT_RECURSIVE,
    BY_FD,
    NONE,
    PROC_SUPER_MAGIC,
    RESOLVE_NO_SYMLINKS,
    RootfsPlan,
    clean_path,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...oci import model
    from ..model.plan import Builder
    from ..model.steps import Label, Step

    Rules = tuple[tuple[int, Label | None], ...]

# lxcfs and the like put files over these; all else in /proc is the kernel's word (runc's list).
_PROC_FILES = (
    "cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo", "sys/kernel/ns_last_pid",
    "sys/crypto/fips_enabled",
)  # fmt: skip
PROC_FILES = {f"/proc/{name}" for name in _PROC_FILES}


class Entry:
    """One entry: index, its pointer, the values, the options, the clean destination, the file system's type."""

    __slots__ = ("at", "dest", "fstype", "index", "o", "spec")

    def __init__(self, index: int, mount: model.Mount) -> None:
        self.index = index
        self.at = f"/mounts/{index}"
        self.spec = mount
        self.o = parse_options(mount.options)
        if self.o.joined:
            hint = 'each option is a string of its own, as in ["rbind", "ro"]'
            joined = [(f"{self.at}/options/{i}", f'"{mount.options[i]}" is several in one') for i in self.o.joined]
            raise ConfigError(joined, hint=hint)
        self.dest = clean_path(mount.destination)
        self.fstype = mount.type or ""
        if self.o.bind or self.fstype == "bind":
            self.o.bind, self.fstype = (False, "remount") if self.o.remount else (True, "bind")
        elif self.fstype == "cgroup":
            self.fstype = "cgroup2"


def open_target(b: Builder, rp: RootfsPlan, m: Entry, like: int = NONE) -> None:
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


def attach(b: Builder, rp: RootfsPlan, m: Entry, slot: int) -> None:
    b.add(STAGE2, MoveMount(mount=slot, onto=rp.target, flags=BY_FD, at=m.at, why=f"{m.fstype} on {m.dest}"))


def setattr_step(slot: int, m: Entry, why: str, *, on: Rules = (), at_flags: int = AT_EMPTY_PATH, **args: int) -> Step:
    return MountSetattr(mount=slot, at=f"{m.at}/options", why=why, on=on, at_flags=at_flags, **args)


def set_propagation(b: Builder, m: Entry, slot: int, kinds: list[tuple[int, bool]]) -> None:
    for kind, recursive in kinds:
        flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
        b.add(STAGE2, setattr_step(slot, m, "its propagation", at_flags=flags, propagation=kind))


def set_recursive_attrs(b: Builder, m: Entry, slot: int) -> None:
    if m.o.rec_set or m.o.rec_clear:
        flags = AT_EMPTY_PATH | AT_RECURSIVE
        b.add(
            STAGE2,
            setattr_step(slot, m, "for it and all mounts below", at_flags=flags, set=m.o.rec_set, clear=m.o.rec_clear),
        )


def add_idmap(b: Builder, lane: int, spec: model.Spec, rp: RootfsPlan, m: Entry, slot: int) -> None:
    whole = AT_RECURSIVE if m.o.idmap == 2 else 0
    b.add(
        lane,
        MountSetattr(
            mount=slot,
            at_flags=AT_EMPTY_PATH | whole,
            set=IDMAP,
            userns=rp.idmaps[maps_of(spec, m)],
            at=m.at,
            why="owners as the mappings show them",
        ),
    )


def maps_of(spec: model.Spec, m: Entry) -> tuple[str, str]:
    """uid_map and gid_map of the mount, or the container's; both empty: those of the user namespace it joins."""
    uids, gids = m.spec.uid_mappings, m.spec.gid_mappings
    if not uids and spec.linux:
        uids, gids = spec.linux.uid_mappings, spec.linux.gid_mappings
    return map_text(uids), map_text(gids)


def map_text(mappings: tuple[model.IdMapping, ...]) -> str:
    return "".join(f"{i.container_id} {i.host_id} {i.size}\n" for i in mappings)
