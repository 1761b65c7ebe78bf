"""The root out of layers: an overlay that is mounted nowhere but in the container's own mount namespace.

Where layers may be descriptors of mounts that are attached nowhere (Linux 6.15), the parent makes it so, a step a
layer, and the mount is handed over. Before, overlayfs takes paths alone, of mounts in the caller's own namespace, and
fsconfig(2) takes 255 bytes; so mount(2) does it in a namespace of the container's, and the layers' paths are those of
open descriptors, with which 127 fit into its page. For a user namespace that is stage 1, which is not in it yet: only
outside of it may a layer's owners be mapped.
"""

from __future__ import annotations

from ...errors import ConfigError, PyrunError
from ..model.overlay import Overlay
from ..model.steps import (
    PARENT,
    STAGE1,
    STAGE2,
    Close,
    Fsconfig,
    Fsmount,
    Fsopen,
    MakeTarget,
    MakeUserns,
    Mount,
    MountSetattr,
    MoveMount,
    Openat2,
    OpenTree,
    Unshare,
    slot_mark,
)
from .file_systems import split_layers
from .mount_entry import attach, map_text, open_target
from .mount_options import IDMAP, MS_SLAVE
from .rootfs_plan import (
    AT_EMPTY_PATH,
    AT_RECURSIVE,
    BY_FD,
    CLONE_FD,
    CMD_CREATE,
    NONE,
    O_PATH,
    OPEN_TREE_CLONE,
    SET_FD,
    SET_FLAG,
    SET_STRING,
    RootfsPlan,
    clean_path,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...oci.model import Spec
    from ..model.plan import Builder
    from .mount_entry import Entry

AT, WRITABLE = "/root/path", "the layer that is written to"
NEWNS = 0x20000
DETACHED_LAYERS = (6, 15)  # overlayfs takes descriptors since 6.13, and of mounts that are attached nowhere since 6.15
IDMAPPED_LAYERS = (5, 19)
MOST = 200  # layers, whose descriptors' paths are to fit into a page; an image has 127 at most


def plan_overlay_parent(b: Builder, spec: Spec, rp: RootfsPlan, proc: int) -> None:
    """PARENT, before stage 1: the root, or for an older kernel what stage 1 or 2 need to make it. proc: the host's."""
    o = rp.overlay
    assert o is not None
    _check(spec, rp, o)
    userns = _userns(b, spec, rp, proc) if o.idmap else NONE
    if rp.kernel >= DETACHED_LAYERS:
        _detached(b, rp, o, userns, rp.root, AT)


def is_made_late(rp: RootfsPlan) -> bool:
    """Whether stage 1 or 2 makes it."""
    return rp.overlay is not None and rp.kernel < DETACHED_LAYERS


def plan_overlay_stage1(b: Builder, rp: RootfsPlan) -> None:
    """STAGE1, still in the host's user namespace and in a mount namespace of its own: the root for stage 2."""
    why = "its mounts stay out of the host's namespace"
    b.add(
        STAGE1,
        Unshare(flags=NEWNS, at=AT, why="to mount the layers where the host does not see it"),
        MountSetattr(path="/", at_flags=AT_RECURSIVE, propagation=MS_SLAVE, at=AT, why=why),
    )
    plan_overlay_here(b, rp)


def plan_overlay_here(b: Builder, rp: RootfsPlan) -> None:
    """STAGE1, where its mounts are seen by nobody."""
    o = rp.overlay
    assert o is not None
    base = b.slot("root-directory")
    b.add(STAGE1, Openat2(path=rp.rootfs.rstrip("/") + "/", flags=O_PATH, out=base, at=AT))
    userns = next(iter(rp.idmaps.values())) if o.idmap else NONE  # the first: the mounts come after the root
    _clone_late(b, rp, o, base, userns, rp.root, AT)
    plan_late_overlays(b, rp, base)


def plan_late_overlays(b: Builder, rp: RootfsPlan, base: int = NONE) -> None:
    """STAGE1: the mounts of layers. base: a slot with some directory, where each is mounted for a moment."""
    for at, o, slot in rp.late_overlays:
        if base == NONE:
            base = b.slot("root-directory")
            b.add(STAGE1, Openat2(path=rp.rootfs.rstrip("/") + "/", flags=O_PATH, out=base, at=at))
        userns = rp.idmaps[o.maps] if o.maps else NONE
        _clone_late(b, rp, o, base, userns, slot, at)


def _clone_late(b: Builder, rp: RootfsPlan, o: Overlay, base: int, userns: int, out: int, at: str) -> None:
    layers = mount_overlay(b, STAGE1, rp.label, o, base, userns, at)
    path, flags = rp.rootfs.rstrip("/") + "/", OPEN_TREE_CLONE
    b.add(STAGE1, OpenTree(path=path, flags=flags, out=out, at=at, why="for stage 2"))
    b.add(STAGE1, *(Close(fd=slot, why="the host's") for slot in layers))


def is_of_layers(m: Entry, rp: RootfsPlan) -> bool:
    """Whether a mount is an overlay of the host's directories that stage 2 could not make by itself: it may not see
    them, or not as their owners are to be mapped."""
    if m.fstype != "overlay" or not (rp.bare or (rp.parent_mounts and m.spec.uid_mappings)):
        return False
    return [key for key, _, _ in m.o.data] == ["lowerdir"]


def plan_layers_parent(b: Builder, rp: RootfsPlan, m: Entry, maps: tuple[str, str] | None) -> None:
    """PARENT: such a mount, or for an older kernel what stage 1 needs to make it. maps: the key of its mappings."""
    at, lower = m.at, m.o.data[0][1] or ""
    o = Overlay(tuple(path for _, path in split_layers(lower)), idmap=maps is not None)
    o.maps = maps
    if not 2 <= len(o.lower) <= MOST:
        raise ConfigError([(f"{at}/options", f"an overlay that is not written to has from 2 to {MOST} layers")])
    if maps and rp.kernel < IDMAPPED_LAYERS:
        raise ConfigError([(at, "layers in a user namespace need Linux 5.19 or newer")])
    detached = rp.kernel >= DETACHED_LAYERS
    if not detached and not rp.bare and rp.overlay is None:
        raise ConfigError([(at, "layers with mappings need Linux 6.15, or a root that is made of layers as well")])
    slot = rp.clones[m.index] = b.slot(f"mount-{m.index}", inherit=detached)
    if detached:
        _detached(b, rp, o, rp.idmaps[maps] if maps else NONE, slot, at)
    else:
        rp.late_overlays.append((at, o, slot))
        if maps and rp.idmaps[maps] not in b.inherit:
            b.inherit.append(rp.idmaps[maps])


def plan_layers(b: Builder, rp: RootfsPlan, m: Entry) -> None:
    """STAGE2: puts it in its place."""
    slot = rp.clones[m.index]
    if m.o.attrs():
        b.add(STAGE2, MountSetattr(mount=slot, at_flags=AT_EMPTY_PATH, set=m.o.attrs(), at=f"{m.at}/options"))
    open_target(b, rp, m, like=slot)
    attach(b, rp, m, slot)


def plan_overlay_stage2(b: Builder, rp: RootfsPlan, base: int) -> None:
    """STAGE2, without a user namespace: the root on the directory in slot `base`."""
    o = rp.overlay
    assert o is not None
    mount_overlay(b, STAGE2, rp.label, o, base)
    b.add(STAGE2, Openat2(path=rp.rootfs.rstrip("/") + "/", flags=O_PATH, out=rp.root, at=AT, why="what was mounted"))


def plan_volumes(b: Builder, spec: Spec, rp: RootfsPlan) -> None:
    """STAGE2, before the mounts: the image's volumes, made in the root only, whatever their paths lead to
    (CVE-2022-23648)."""
    for path in rp.overlay.volumes if rp.overlay is not None else ():
        why = "a volume of the image's"
        b.add(
            STAGE2, MakeTarget(root=rp.root, path=clean_path(path), mode=0o755, mount=1, out=rp.target, at=AT, why=why)
        )
        if spec.root.readonly:
            why = "stays writable when the root no longer is"
            b.add(
                STAGE2,
                OpenTree(dir=rp.target, path="", flags=CLONE_FD, out=rp.mount, at=AT, why=why),
                MoveMount(mount=rp.mount, onto=rp.target, flags=BY_FD, at=AT, why=f"on itself: {clean_path(path)}"),
            )


def _check(spec: Spec, rp: RootfsPlan, o: Overlay) -> None:
    made = [ns for ns in spec.linux.namespaces if ns.type == "mount" and ns.path is None] if spec.linux else []
    if not made:
        raise PyrunError("a root out of layers needs a mount namespace of the container's own", pointer=AT)
    if rp.locked and not rp.parent_mounts:
        raise PyrunError(
            "a root out of layers takes privilege over the file system, which a rootless runtime has not",
            pointer=AT,
            hint="run pyrun as root, or unpack the image into one directory",
        )
    if not 0 < len(o.lower) <= MOST:
        raise PyrunError(f"a root has from 1 to {MOST} layers, not {len(o.lower)}", pointer=AT)
    if (o.upper is None) != (o.work is None) or (o.upper is None and len(o.lower) < 2):
        raise PyrunError("an overlay needs an upper and a work directory, or two layers without either", pointer=AT)
    if o.upper is not None and o.work is not None and _split(o.upper)[0] != _split(o.work)[0]:
        raise PyrunError("the upper and the work directory lie in two directories", pointer=AT)
    if o.idmap and rp.kernel < IDMAPPED_LAYERS:
        raise PyrunError(
            "layers in a user namespace need Linux 5.19 or newer",
            pointer=AT,
            hint="run the pod without a user namespace",
        )


def _split(path: str) -> tuple[str, str]:
    head, _, tail = path.rstrip("/").rpartition("/")
    return head or "/", tail


def _userns(b: Builder, spec: Spec, rp: RootfsPlan, proc: int) -> int:
    """A slot with a user namespace that has the container's mappings: its own where that is joined."""
    linux = spec.linux
    assert linux is not None
    maps = map_text(linux.uid_mappings), map_text(linux.gid_mappings)
    slot = rp.idmaps[maps] = b.slot(f"idmap-{len(rp.idmaps)}", inherit=True)
    paths = [ns.path for ns in linux.namespaces if ns.type == "user" and ns.path]
    if paths:
        b.add(PARENT, Openat2(path=paths[0], flags=0, out=slot, at=AT, why="whose mappings the layers take"))
    else:
        b.add(
            PARENT,
            MakeUserns(
                proc=proc,
                uid_map=maps[0],
                gid_map=maps[1],
                out=slot,
                at="/linux/uidMappings",
                why="holds the layers' mappings",
            ),
        )
    return slot


def _detached(b: Builder, rp: RootfsPlan, o: Overlay, userns: int, out: int, at: str) -> None:
    """By descriptors, one after the other, in the parent."""
    layer = b.slot("layer")
    b.add(PARENT, Fsopen(fstype="overlay", out=rp.fs, at=at, why="out of its layers"))
    for number, path in enumerate(o.lower):
        if userns != NONE:  # a clone is gone with its last descriptor, also for the overlay that is to have it
            layer = b.slot(f"layer-{number}")
        _open_layer(b, PARENT, path, layer, userns, at)
        b.add(PARENT, Fsconfig(fs=rp.fs, cmd=SET_FD, key="lowerdir+", fd=layer, at=at))
    if o.upper is not None and o.work is not None:
        above, part = b.slot("writable"), b.slot("writable-part")
        _open_layer(b, PARENT, _split(o.upper)[0], above, NONE, at)
        for key, path in (("upperdir", o.upper), ("workdir", o.work)):
            b.add(
                PARENT,
                Openat2(dir=above, path=_split(path)[1], flags=O_PATH, out=part, at=at, why=WRITABLE),
                Fsconfig(fs=rp.fs, cmd=SET_FD, key=key, fd=part, at=at),
            )
    for key, value in _settings(rp.label, o):
        step = Fsconfig(fs=rp.fs, cmd=SET_FLAG, key=key, at=at)
        if value is not None:
            step = Fsconfig(fs=rp.fs, cmd=SET_STRING, key=key, value=value, at=at)
        b.add(PARENT, step)
    b.add(
        PARENT,
        Fsconfig(fs=rp.fs, cmd=CMD_CREATE, at=at, why="makes the overlay"),
        Fsmount(fs=rp.fs, attrs=0, out=out, at=at, why="mounted, but nowhere: the host's mount table has it not"),
    )


def _settings(label: str | None, o: Overlay) -> list[tuple[str, str | None]]:
    """index: off, or an upper directory could not be used with other layers, nor two that share one."""
    settings: list[tuple[str, str | None]] = [("index", "off")]
    if label:
        settings.append(("context", label))
    if o.volatile:
        settings.append(("volatile", None))
    return settings


def _open_layer(b: Builder, lane: int, path: str, slot: int, userns: int, at: str) -> None:
    """A layer's directory, or a clone of it in which owners are as the user namespace has them."""
    if userns == NONE:
        b.add(lane, Openat2(path=path.rstrip("/") + "/", flags=O_PATH, out=slot, at=at))
        return
    why = "owners as the container has them"
    b.add(
        lane,
        OpenTree(path=path.rstrip("/") + "/", flags=OPEN_TREE_CLONE, out=slot, at=at),
        MountSetattr(mount=slot, at_flags=AT_EMPTY_PATH, set=IDMAP, userns=userns, at=at, why=why),
    )


def mount_overlay(
    b: Builder, lane: int, label: str | None, o: Overlay, base: int, userns: int = NONE, at: str = AT
) -> list[int]:
    """By one mount(2) on the directory in slot `base`. Clones are put there as well, below it, as what is attached
    nowhere is no layer yet. Returns the slots of the layers."""
    paths = [*o.lower, *([_split(o.upper)[0]] if o.upper is not None else [])]
    marks, opened = [], []
    for number, path in enumerate(paths):
        slot = b.slot(f"layer-{number}")
        mapped = userns if number < len(o.lower) else NONE
        _open_layer(b, lane, path, slot, mapped, at)
        if mapped != NONE:
            b.add(lane, MoveMount(mount=slot, onto=base, flags=BY_FD, at=at, why="to be a mount of this namespace"))
        opened.append(slot)
        marks.append("/proc/self/fd/" + slot_mark(slot))
    data = [f"lowerdir={':'.join(marks[: len(o.lower)])}"]
    if o.upper is not None and o.work is not None:
        data += [f"upperdir={marks[-1]}/{_split(o.upper)[1]}", f"workdir={marks[-1]}/{_split(o.work)[1]}"]
    data += [
        f'{key}="{value}"' if key == "context" else f"{key}={value}" if value else key
        for key, value in _settings(label, o)
    ]
    b.add(
        lane,
        Mount(
            onto=base,
            fstype="overlay",
            source="overlay",
            data=",".join(data),
            flags=0,
            marks=1,
            at=at,
            why="in this mount namespace alone; overlayfs takes no such descriptors before Linux 6.15",
        ),
    )
    return opened
