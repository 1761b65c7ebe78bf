"""Bind mounts: a clone of the source's mount, with flags and propagation of its own, attached when it is complete."""

from __future__ import annotations

from ...errors import ConfigError, PyrunError
from ..model.steps import (
    STAGE2,
    CheckFs,
    Meet,
    OpenTree,
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
    BIND_FLAGS,
    MS_PRIVATE,
    TABLE,
)
from .rootfs_plan import (
    AT_EMPTY_PATH,
    AT_RECURSIVE,
    EACCES,
    EINVAL,
    EPERM,
    IDMAP_POINT,
    OPEN_TREE_CLONE,
    PROC_SUPER_MAGIC,
    RootfsPlan,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...oci import model
    from ..model.plan import Builder


def bind_source(m: Entry, rp: RootfsPlan) -> str:
    if not m.spec.source:
        raise ConfigError([(f"{m.at}/source", "is missing, and a bind mount needs it")])
    if m.spec.source.startswith("/"):
        return m.spec.source
    if not rp.bundle:
        raise PyrunError(
            f"the bundle's directory is not known, and {m.spec.source} is relative to it", pointer=f"{m.at}/source"
        )
    return f"{rp.bundle}/{m.spec.source}"


def tree_flags(m: Entry) -> int:
    return OPEN_TREE_CLONE | (AT_RECURSIVE if m.o.recursive else 0)


def _check_words(m: Entry) -> None:
    """A file system's own settings (size=3) mean nothing to a bind and are passed over, as mount(2) does; a single word
    is a mistyped flag, but for the two that podman leaves among the options of a named volume. So is a flag with a
    value: `ro=recursive` must not leave a mount writable."""
    words = [
        (key if value is None else f"{key}={value}", index)
        for key, value, index in m.o.data
        if (value is None and key not in ("copy", "nocopy")) or key in TABLE
    ]
    unknown = [(f"{m.at}/options/{index}", f"{word} is not an option of a bind mount") for word, index in words]
    if unknown:
        raise ConfigError(unknown)


def plan_remount(b: Builder, rp: RootfsPlan, m: Entry) -> None:
    """bind and remount: the flags of what is mounted there already, and the source means nothing (mount(2))."""
    _check_words(m)
    if m.o.idmap or m.spec.uid_mappings:
        raise ConfigError([(m.at, "what is mounted already can't be mapped to other ids")])
    open_target(b, rp, m)
    _bind_attrs(b, rp, m, rp.target)


def plan_bind(b: Builder, spec: model.Spec, rp: RootfsPlan, m: Entry) -> None:
    _check_words(m)
    slot, idmap = rp.clones.get(m.index, rp.mount), m.o.idmap or m.spec.uid_mappings
    if not rp.bare and (slot == rp.mount or not idmap):
        # What the parent cloned stays for a source that we may not walk to, or that has locked mounts below it.
        rules = () if slot == rp.mount else ((EACCES, None), (EINVAL, None))
        place: dict[str, object] = {"path": bind_source(m, rp)}
        if m.index in rp.brought:  # we may not be able to walk to the root
            place = {"dir": rp.root, "path": rp.brought[m.index]}
        b.add(
            STAGE2,
            OpenTree(
                **place,
                flags=tree_flags(m),
                out=slot,
                on=rules,
                at=f"{m.at}/source",
                why="a mount of its own",
            ),
        )
    if idmap and m.index in rp.brought:
        b.add(
            STAGE2, Meet(point=IDMAP_POINT, fd=slot, at=m.at, why="an earlier mount has it: the parent maps its owners")
        )
    elif idmap and (rp.bare or slot == rp.mount):
        add_idmap(b, STAGE2, spec, rp, m, slot)
    _bind_attrs(b, rp, m, slot)
    if m.dest == "/proc":
        b.add(
            STAGE2,
            CheckFs(fd=slot, magic=PROC_SUPER_MAGIC, at=m.at, why="nothing but a procfs on /proc (CVE-2019-19921)"),
        )
    open_target(b, rp, m, like=slot)
    attach(b, rp, m, slot)


def _bind_attrs(b: Builder, rp: RootfsPlan, m: Entry, slot: int) -> None:
    """Flags and propagation, in as few calls as they take.

    An option that sets or clears a flag means all flags: those not named are cleared (as runc and mount --bind -o
    do), unless the kernel locks them, as it does for a user namespace with what it inherited; then they stay, but for
    one that was asked to go.
    """
    o = m.o
    atime = 0 if o.atime is None else ATIME
    wanted, unwanted, rest = o.attrs(), o.clear | atime, BIND_FLAGS & ~(o.set | o.clear) if o.flagged else 0
    if not rp.locked:
        unwanted, rest = unwanted | rest, 0
    kinds = o.propagation or ([] if o.remount else [(MS_PRIVATE, True)])
    args: dict[str, int] = {}
    if kinds and (not o.recursive or not (wanted or unwanted) or not kinds[0][1]):
        whole = AT_RECURSIVE if o.recursive and kinds[0][1] else 0
        args = {"propagation": kinds[0][0], "at_flags": AT_EMPTY_PATH | whole}
        kinds = kinds[1:]
    if wanted:
        args["set"] = wanted
    if unwanted:
        args["clear"] = unwanted
    b.add(STAGE2, setattr_step(slot, m, "its flags" if wanted or unwanted else "its propagation", **args))  # type: ignore[arg-type]
    set_propagation(b, m, slot, kinds)
    if rest:
        # EPERM leaves all of them on, and none of them gives a right.
        b.add(
            STAGE2,
            setattr_step(slot, m, "flags that were not named go, but for locked ones", clear=rest, on=((EPERM, None),)),
        )
    set_recursive_attrs(b, m, slot)
