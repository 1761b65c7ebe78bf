"""/dev: the default devices and links, linux.devices, and the console.

All of it is made when all mounts are there, through one descriptor of the /dev that is then on top, reached without a
symlink: an image whose /dev leads elsewhere makes create fail and nothing else (CVE-2026-41579 of runc,
CVE-2026-47766 of crun). Where mknod(2) is refused, in a user namespace or to a rootless runtime, the host's nodes are
bound, after a look that they are the devices they should be. In a user namespace those of linux.devices are the
parent's, who makes them: so they may have other paths, owners and modes than the host's.
"""

from __future__ import annotations

from ...errors import ConfigError
from ..model.id_maps import host_id
from ..model.plan import Builder
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
    MakeTarget,
    Mknodat,
    MoveMount,
    Openat2,
    Openpt,
    OpenTree,
    SendFd,
    SetStdio,
    Symlinkat,
    Umount,
    Unlinkat,
)
from .mount_options import NOSUID
from .mounts import is_bind_of_dev
from .rootfs_plan import (
    BY_FD,
    CLONE_FD,
    CMD_CREATE,
    DEVPTS_SUPER_MAGIC,
    EEXIST,
    ENOENT,
    EPERM,
    IN_ROOT,
    MNT_DETACH,
    NONE,
    O_PATH,
    OPEN_TREE_CLONE,
    RESOLVE_BENEATH,
    RESOLVE_NO_SYMLINKS,
    S_IFBLK,
    S_IFCHR,
    S_IFIFO,
    SET_STRING,
    RootfsPlan,
    clean_path,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...oci import model

# config-linux.md, "Default Devices"; majors and minors are the kernel's (devices.txt).
DEFAULT_DEVICES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
)
_TYPES = {"c": S_IFCHR, "u": S_IFCHR, "b": S_IFBLK, "p": S_IFIFO}
_EXISTS = ((EEXIST, None),)  # the image's own: what it leads to is the container's to choose


class _Node:
    __slots__ = ("at", "gid", "major", "minor", "mode", "path", "type", "uid")

    def __init__(
        self,
        path: str,
        at: str | None,
        kind: int,
        major: int,
        minor: int,
        mode: int = 0o666,
        uid: int = 0,
        gid: int = 0,
    ) -> None:
        self.path = path
        self.at = at
        self.type = kind
        self.major = major
        self.minor = minor
        self.mode = mode
        self.uid = uid
        self.gid = gid


def _nodes(spec: model.Spec) -> dict[str, _Node]:
    """By path: the default devices, and config.json's, which replace a default one of the same path."""
    nodes = {
        f"/dev/{name}": _Node(f"/dev/{name}", None, S_IFCHR, major, minor) for name, major, minor in DEFAULT_DEVICES
    }
    for i, d in enumerate(spec.linux.devices if spec.linux else ()):
        at, path = f"/linux/devices/{i}", clean_path(d.path)
        if path in ("/", "/dev"):
            raise ConfigError([(f"{at}/path", f"{d.path} can't be a device")])
        mode = 0o666 if d.file_mode is None else d.file_mode & 0o7777
        nodes[path] = _Node(path, at, _TYPES[d.type], d.major or 0, d.minor or 0, mode, d.uid or 0, d.gid or 0)
    nodes.pop("/dev/ptmx", None)  # always the link to the container's own
    return nodes


def plan_nodes_parent(b: Builder, spec: model.Spec, rp: RootfsPlan) -> None:
    """linux.devices of a container with a user namespace, made by the parent, which may: with their own owner and mode,
    whatever the host has at their paths. They lie in a tmpfs of their own, each under its index. Where the parent is
    refused by a device cgroup, the host's node is bound, as the default ones are."""
    linux = spec.linux
    if linux is None or not rp.makes_nodes or any(map(is_bind_of_dev, spec.mounts)):
        return
    for node in _nodes(spec).values():
        if node.at is not None and node.type != S_IFIFO:
            uid, gid = host_id(linux.uid_mappings, node.uid), host_id(linux.gid_mappings, node.gid)
            if uid is not None and gid is not None:
                rp.nodes[node.path] = _mknod(node, NONE, str(len(rp.nodes)), gid << 32 | uid)
    if not rp.nodes:
        return
    rp.node_mount, refused = b.slot("devices", inherit=True), Label("no more devices")
    b.add(PARENT, Fsopen(fstype="tmpfs", out=rp.fs, at="/linux/devices", why="a user namespace may make none"))
    if rp.label:
        b.add(PARENT, Fsconfig(fs=rp.fs, cmd=SET_STRING, key="context", value=rp.label, at="/linux/mountLabel"))
    b.add(PARENT, Fsconfig(fs=rp.fs, cmd=CMD_CREATE), Fsmount(fs=rp.fs, attrs=NOSUID, out=rp.node_mount))
    for step in rp.nodes.values():
        step.args["dir"], step.on = rp.node_mount, ((EPERM, refused),)
        b.add(PARENT, step)
    b.add(PARENT, refused)


def bound_nodes(spec: model.Spec) -> list[_Node]:
    """Those that are the host's where mknod(2) is refused."""
    return [] if any(map(is_bind_of_dev, spec.mounts)) else [n for n in _nodes(spec).values() if n.type != S_IFIFO]


def plan_dev(b: Builder, spec: model.Spec, rp: RootfsPlan) -> None:
    """Opens rp.dev and fills it, unless /dev is a bind, which is another's to fill."""
    rp.dev = b.slot("dev")
    foreign = [i for i, mount in enumerate(spec.mounts) if is_bind_of_dev(mount)]
    if foreign:
        b.add(
            STAGE2,
            Openat2(
                dir=rp.root,
                path="dev",
                flags=O_PATH,
                resolve=IN_ROOT | RESOLVE_NO_SYMLINKS,
                out=rp.dev,
                at=f"/mounts/{foreign[-1]}",
                why="it brings its devices",
            ),
        )
        return
    b.add(
        STAGE2,
        MakeTarget(
            root=rp.root,
            path="/dev",
            mode=0o755,
            resolve=RESOLVE_NO_SYMLINKS,
            out=rp.dev,
            why="the one way to all that comes into it, and no symlink (CVE-2026-41579)",
        ),
    )
    if rp.nodes:
        why = "so that they can be bound: in the way of none, as all that comes goes by what is below"
        b.add(STAGE2, MoveMount(mount=rp.node_mount, onto=rp.dev, flags=BY_FD, at="/linux/devices", why=why))
    for node in _nodes(spec).values():
        _node(b, rp, node)
    if rp.nodes:
        b.add(STAGE2, Umount(mount=rp.node_mount, flags=MNT_DETACH, at="/linux/devices"))
    for name, target in LINKS:
        b.add(STAGE2, Symlinkat(dir=rp.dev, target=target, name=name, on=_EXISTS))
    without = Label("no kcore")
    kcore = Openat2(path="/proc/kcore", flags=O_PATH, out=rp.target, on=((ENOENT, without),))
    kcore.why = "does this kernel have it"
    if rp.bare:
        kcore.args |= {"dir": rp.root, "resolve": IN_ROOT}
    b.add(
        STAGE2,
        kcore,
        Symlinkat(dir=rp.dev, target="/proc/kcore", name="core", on=_EXISTS),
        without,
        Unlinkat(dir=rp.dev, path="ptmx", flags=0, on=((ENOENT, None),), why="the image's own, if any"),
        Symlinkat(dir=rp.dev, target="pts/ptmx", name="ptmx", why="the container's terminals, not the host's"),
    )


def _node(b: Builder, rp: RootfsPlan, node: _Node) -> None:
    base, inner = (rp.dev, node.path[4:]) if node.path.startswith("/dev/") else (rp.root, node.path)
    if rp.bind_nodes and node.type != S_IFIFO:
        _bind_node(b, rp, node, base, inner)
        return
    parent, _, name = inner.rpartition("/")
    if parent:
        b.add(
            STAGE2, MakeTarget(root=base, path=parent, mode=0o755, out=rp.target, at=node.at, why="for a device in it")
        )
        base = rp.target
    b.add(STAGE2, _mknod(node, base, name, node.gid << 32 | node.uid))


def _mknod(node: _Node, dir: int, name: str, owner: int) -> Mknodat:
    return Mknodat(
        dir=dir,
        name=name,
        mode=node.type | node.mode,
        dev=node.major << 32 | node.minor,
        owner=owner,
        at=node.at,
        why="a default device" if node.at is None else "",
    )


def _bind_node(b: Builder, rp: RootfsPlan, node: _Node, base: int, inner: str) -> None:
    made, bound = rp.nodes.get(node.path), Label("a device to bind")
    if made is not None:
        host = Label("the host's device")
        name, on = made.args["name"], ((ENOENT, host),)
        tree = OpenTree(dir=rp.node_mount, path=name, flags=OPEN_TREE_CLONE, out=rp.mount, on=on, at=node.at)
        b.add(STAGE2, tree, Goto(on=((ANY, bound),)), host)
    b.add(
        STAGE2,
        OpenTree(
            path=node.path,
            flags=OPEN_TREE_CLONE,
            out=rp.mount,
            at=node.at,
            why="the host's, as mknod(2) is refused here",
        ),
    )
    if node.type == S_IFCHR:
        b.add(STAGE2, CheckDevice(fd=rp.mount, major=node.major, minor=node.minor, at=node.at))
    else:
        dev = node.major << 32 | node.minor
        b.add(STAGE2, CheckType(fd=rp.mount, type=node.type, dev=dev, at=node.at))
    b.add(
        STAGE2,
        bound,
        MakeTarget(root=base, path=inner, like=rp.mount, mode=0o644, mount=1, out=rp.target, at=node.at),
        MoveMount(mount=rp.mount, onto=rp.target, flags=BY_FD, at=node.at),
    )


def plan_console(b: Builder, rp: RootfsPlan, spec: model.Spec, *, socket: int = NONE) -> tuple[int, int]:
    """A terminal of the container's own devpts: its slave on /dev/console and on 0, 1, 2; its master to socket.
    Returns (master, slave).

    Nothing is opened by a name that the image could have chosen: ptmx on a file system that is devpts, the slave
    through its master, and /dev/console is the descriptor on which the slave's own mount is put (CVE-2025-52565).
    """
    at = "/process/terminal"
    if rp.dev == NONE:
        raise ConfigError([(at, "a terminal needs a mount namespace, for /dev/console")])
    size = spec.process.console_size if spec.process else None
    master, slave = b.slot("terminal"), b.slot("terminal-slave")
    b.add(
        STAGE2,
        Openat2(
            dir=rp.dev,
            path="pts/",
            flags=O_PATH,
            resolve=RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
            out=rp.target,
            at=at,
            why="the container's devpts",
        ),
        CheckFs(fd=rp.target, magic=DEVPTS_SUPER_MAGIC, at=at, why="a real one"),
        Openpt(
            dev=rp.target,
            path="ptmx",
            columns=size.width if size else 0,
            rows=size.height if size else 0,
            slave=slave,
            out=master,
            at=at,
        ),
        OpenTree(
            dir=slave, path="", flags=CLONE_FD, out=rp.mount, at=at, why="by descriptor, not by name (CVE-2025-52565)"
        ),
        MakeTarget(
            root=rp.dev,
            path="console",
            like=rp.mount,
            mode=0o600,
            resolve=RESOLVE_NO_SYMLINKS,
            mount=1,
            out=rp.target,
            at=at,
        ),
        MoveMount(mount=rp.mount, onto=rp.target, flags=BY_FD, at=at, why="the terminal on /dev/console"),
    )
    if socket != NONE:
        b.add(STAGE2, SendFd(socket=socket, fd=master, data="/dev/ptmx", at=at, why="the master, to who asked for it"))
    b.add(STAGE2, SetStdio(terminal=slave, at=at, why="the controlling terminal"))
    return master, slave
