"""The mounts of config.json, in their order, each a few steps: make or open the source, open the target, attach.

A mount is complete before it is attached: what a container can see has its flags and its propagation from the first
moment. Slots are used again by the next mount, so 10,000 mounts need the descriptors of one.
"""

from __future__ import annotations

from ...errors import ConfigError
from ..model.steps import (
    PARENT,
    Ack,
    Await,
    Close,
    Label,
    MakeUserns,
    MountSetattr,
    Openat2,
    OpenTree,
)
from ..namespace.namespaces import PATIENCE_MS
from .binds import bind_source, plan_bind, plan_remount, tree_flags
from .file_systems import needs_mount2, plan_by_mount2, plan_cgroup_mount, plan_file_system
from .mount_entry import (
    Entry,
    add_idmap,
    maps_of,
)
from .mount_options import (
    MS_SLAVE,
)
from .rootfs_plan import (
    AT_EMPTY_PATH,
    AT_RECURSIVE,
    ENOENT,
    EPERM,
    IDMAP_POINT,
    NONE,
    RootfsPlan,
    clean_path,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...oci import model
    from ..model.plan import Builder

MAX_CLONES = 200  # descriptors that the parent opens for binds; the rest the container must be able to walk to


def is_bind_of_dev(mount: model.Mount) -> bool:
    """The host's or another container's /dev: it has its devices and must not be touched."""
    if clean_path(mount.destination) != "/dev":
        return False
    bind = mount.type == "bind" or "bind" in mount.options or "rbind" in mount.options
    return bind and "remount" not in mount.options


def plan_mounts_parent(b: Builder, spec: model.Spec, rp: RootfsPlan, proc: int) -> None:
    """What stage 2 can't do by itself: user namespaces for idmaps (proc is there if there is one), and in a user
    namespace of its own the clones of sources.
    """
    if proc == NONE and not rp.parent_mounts and not rp.bare:
        return
    for index, mount in enumerate(spec.mounts):
        m = Entry(index, mount)
        idmap = m.o.idmap or mount.uid_mappings
        if idmap:
            _check_idmap(m, rp)
            _idmap_userns(b, spec, rp, m, proc)
        if m.fstype == "overlay":
            _layers(b, spec, rp, m)
        elif m.o.bind and _is_brought(spec, m, rp) and idmap:
            continue  # stage 2 hands it to the parent
        elif m.o.bind and rp.parent_mounts and (idmap or len(rp.clones) < MAX_CLONES):
            _clone_source(b, spec, rp, m)


def _layers(b: Builder, spec: model.Spec, rp: RootfsPlan, m: Entry) -> None:
    from .overlay import is_of_layers, plan_layers_parent

    if is_of_layers(m, rp):
        plan_layers_parent(b, rp, m, maps_of(spec, m) if m.spec.uid_mappings else None)


def _clone_source(b: Builder, spec: model.Spec, rp: RootfsPlan, m: Entry) -> None:
    slot = rp.clones[m.index] = b.slot(f"mount-{m.index}", inherit=True)
    # EPERM: our mount namespace is not our user namespace's. Stage 2 finds the source by itself then, or fails.
    nested, idmap = Label("no clone"), m.o.idmap or m.spec.uid_mappings
    b.add(
        PARENT,
        OpenTree(
            path=bind_source(m, rp),
            flags=tree_flags(m),
            out=slot,
            on=() if idmap else ((EPERM, nested), *(((ENOENT, nested),) if _may_come(spec, m, rp) else ())),
            at=m.at,
            why="for a container that may not walk there",
        ),
    )
    if idmap:
        add_idmap(b, PARENT, spec, rp, m, slot)
    b.add(
        PARENT,
        MountSetattr(
            mount=slot,
            at_flags=AT_EMPTY_PATH | AT_RECURSIVE,
            propagation=MS_SLAVE,
            at=m.at,
            why="what the container mounts there does not reach the host",
        ),
        nested,
    )


def _may_come(spec: model.Spec, m: Entry, rp: RootfsPlan) -> bool:
    """Whether an earlier entry may bring the source, and so stage 2 alone can find it: it lies in the root."""
    return _place_in_root(spec, m, rp) is not None


def _place_in_root(spec: model.Spec, m: Entry, rp: RootfsPlan) -> str | None:
    """The source as the container has it, where it lies in the root."""
    source = clean_path(bind_source(m, rp)) + "/"
    for root in (rp.rootfs, f"{rp.bundle}/{spec.root.path}", spec.root.path):
        if source.startswith(above := clean_path(root) + "/"):
            return source[len(above) - 1 :]
    return None


def _is_brought(spec: model.Spec, m: Entry, rp: RootfsPlan) -> bool:
    """Whether an earlier entry is mounted on the source, or above it: the parent, which sees none, would clone what
    lies below."""
    place = _place_in_root(spec, m, rp) if rp.parent_mounts and rp.mntns and not rp.bare else None
    if place is None:
        return False
    if any(place.startswith(clean_path(mount.destination).rstrip("/") + "/") for mount in spec.mounts[: m.index]):
        rp.brought[m.index] = place.strip("/") or "."
    return m.index in rp.brought


def plan_handed_mounts(b: Builder, spec: model.Spec, rp: RootfsPlan) -> None:
    """The parent's side: it gives the mounts that stage 2 has cloned their idmap, for which that has no right."""
    for m in [Entry(index, spec.mounts[index]) for index in rp.brought]:
        if not (m.o.idmap or m.spec.uid_mappings):
            continue
        slot = b.slot(f"mount-{m.index}")
        why = "the source is there"
        b.add(PARENT, Await(point=IDMAP_POINT, patience_ms=PATIENCE_MS, out=slot, at=m.at, why=why))
        add_idmap(b, PARENT, spec, rp, m, slot)
        b.add(PARENT, Close(fd=slot), Ack(why="it has its mappings"))


def _check_idmap(m: Entry, rp: RootfsPlan) -> None:
    if rp.locked and not rp.parent_mounts:
        raise ConfigError(
            [(m.at, "an idmapped mount needs privilege over the file system, which a rootless runtime has not")],
            hint="run pyrun as root, or drop idmap and the mappings",
        )


def _idmap_userns(b: Builder, spec: model.Spec, rp: RootfsPlan, m: Entry, proc: int) -> None:
    """A user namespace for these maps, shared by all mounts that have the same."""
    maps = maps_of(spec, m)
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


def plan_mounts(b: Builder, spec: model.Spec, rp: RootfsPlan) -> None:
    """All mounts in the order of config.json, which is the spec's rule; nothing sorts them."""
    for index, mount in enumerate(spec.mounts):
        m = Entry(index, mount)
        if m.o.bind:
            plan_bind(b, spec, rp, m)
        elif m.fstype == "remount":
            plan_remount(b, rp, m)
        elif not m.fstype:
            raise ConfigError([(f"{m.at}/type", "is missing, and the options have neither bind nor rbind")])
        elif m.fstype == "cgroup2":
            plan_cgroup_mount(b, spec, rp, m)
        elif m.fstype == "overlay" and m.index in rp.clones:
            from .overlay import plan_layers

            plan_layers(b, rp, m)
        elif needs_mount2(m, rp):
            plan_by_mount2(b, rp, m)
        else:
            plan_file_system(b, spec, rp, m)
