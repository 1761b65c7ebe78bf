"""The plan of a pod's sandbox: its namespaces, made in one child and pinned; its cgroup, host name, sysctls, /dev/shm
and the files of its containers' /etc.

No process stays: a namespace lives on by the bind mount of its file. The pins, and the pod's /dev/shm, lie below one
mount of the pod's own, DIRECTORY/ns, which is unbindable. So the end is one umount2(2), also of what is half made; no
pin propagates to another mount namespace, and a recursive bind of /run in ours has none of them. A container to which
the host's /run is bound recursively has those of the pods that were there (tried on Linux 6.18): its binds are made in
a new mount namespace, for which the kernel makes unbindable mounts private.

    pyrun (parent lane)                              stage 1
    record, files, cgroup, DIRECTORY/ns, shm
    Clone3 ────────────────────────────────────────▶ Unshare(NEWUSER)
    Await(MAPS) ◀─────────────────────────────────── Meet(MAPS)
    uid_map, gid_map
    Ack ───────────────────────────────────────────▶ Setresuid 0, Unshare(the others): they are the user namespace's
                                                     host name, sysctls, loopback
    Await(READY) ◀────────────────────────────────── Meet(READY)
    pins
    Ack, Reap ─────────────────────────────────────▶ exits
"""

from __future__ import annotations

from ..facts import Facts
from ..oci import names
from ..oci.checks_linux import sysctl_path
from .cgroup.cgroups import plan_path
from .model.plan import Builder, Plan
from .model.steps import (
    NEXT,
    O_DIRECTORY,
    O_PATH,
    O_PATH_DIRECTORY,
    PARENT,
    PID_PREFIX,
    STAGE1,
    UNDO,
    Ack,
    Await,
    CheckFs,
    Clone3,
    CreateFile,
    Fsconfig,
    Fsmount,
    Fsopen,
    Label,
    Meet,
    Mkdirat,
    MountSetattr,
    MoveMount,
    Netlink,
    Openat2,
    OpenTree,
    Prctl,
    Reap,
    RemoveCgroup,
    Sethostname,
    Setns,
    Setresgid,
    Setresuid,
    Step,
    Umount,
    Unlinkat,
    Unshare,
    WriteFile,
)
from .namespace.namespaces import MAPS, PATIENCE_MS, PROC_SUPER_MAGIC, READY
from .namespace.netlink import link_up

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..oci.model import IdMapping

KINDS = ("user", "net", "ipc", "uts")  # the files in DIRECTORY/ns, named as those in /proc/PID/ns
_FLAGS = {"user": "user", "net": "network", "ipc": "ipc", "uts": "uts"}
PINS, SHM, RECORD = "ns", "ns/shm", "sandbox.json"
FILES = ("resolv.conf", "hostname", "hosts")
OPTIONS = "/linux/security_context/namespace_options"
EEXIST, ENOENT, EINVAL = 17, 2, 22
O_NONBLOCK = 0o4000
AT_REMOVEDIR, AT_EMPTY_PATH = 0x200, 0x1000
OPEN_TREE_CLONE = 1
F_EMPTY_PATH, T_EMPTY_PATH = 0x4, 0x40
MS_UNBINDABLE, MS_PRIVATE = 1 << 17, 1 << 18
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8
NOSUID, NODEV, NOEXEC = 2, 4, 8  # MOUNT_ATTR_*
SET_STRING, CMD_CREATE = 1, 6
RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS = 0x01, 0x02
PR_SET_DUMPABLE = 4


class SandboxRequest:
    """What a sandbox is to be, in plain words; pyrun/pod/sandbox makes it of a PodSandboxConfig.

    id; directory: of the pod's state, absolute, whose parent is there. namespaces: those of KINDS that are its own.
    uid_mappings, gid_mappings: of the user namespace. hostname. sysctls: name -> value. cgroup: the absolute path of
    the sandbox's own, cgroups: it, and what else the end is to remove. files: name -> content, of FILES. shm_size:
    bytes, 0: no /dev/shm of its own. record: the bytes of the record."""

    __slots__ = (
        "cgroup",
        "directory",
        "files",
        "gid_mappings",
        "hostname",
        "id",
        "namespaces",
        "record",
        "shm_size",
        "sysctls",
        "uid_mappings",
    )

    def __init__(self, **values: object) -> None:
        self.id = ""
        self.directory = ""
        self.namespaces: tuple[str, ...] = ("net", "ipc", "uts")
        self.uid_mappings: tuple[IdMapping, ...] = ()
        self.gid_mappings: tuple[IdMapping, ...] = ()
        self.hostname = ""
        self.sysctls: dict[str, str] = {}
        self.cgroup: str | None = None
        self.files: dict[str, str] = {}
        self.shm_size = 64 << 20
        self.record = b"{}"
        for name, value in values.items():
            setattr(self, name, value)


class _Slots:
    __slots__ = ("cgroup", "directory", "pins", "proc")
    cgroup: int
    directory: int
    pins: int
    proc: int


def plan_sandbox(req: SandboxRequest, facts: Facts) -> Plan:
    """The plan that makes a sandbox; its undo leaves nothing. PyrunError where the host lacks what is asked for."""
    b, s = Builder(), _Slots()
    undo: list[Step] = []
    _plan_directory(b, s, req, undo)
    _plan_cgroup(b, s, req, facts)
    _plan_pin_mount(b, s, req, undo)
    _plan_shm(b, s, req, undo)
    if req.namespaces:
        _plan_namespaces(b, s, req, facts, undo)
    b.add(UNDO, *undo[::-1])
    return b.plan()


def _plan_directory(b: Builder, s: _Slots, req: SandboxRequest, undo: list[Step]) -> None:
    """The record comes first: it says what an end has to look for, whatever happens to us."""
    s.directory = b.slot("directory")
    made = Mkdirat(path=req.directory, mode=0o700, on=((EEXIST, None),), why="the pod's, where its supervisor is too")
    b.add(PARENT, made, Openat2(path=req.directory, flags=O_PATH_DIRECTORY, out=s.directory))
    undo.append(Unlinkat(path=req.directory, flags=AT_REMOVEDIR, guard=made))
    for name, data in ((RECORD, req.record), *req.files.items()):
        step = CreateFile(dir=s.directory, name=name, mode=0o600 if name == RECORD else 0o644, data=data)
        step.why = "what an end has to undo" if name == RECORD else f"the containers' /etc/{name}"
        b.add(PARENT, step)
        undo.append(Unlinkat(dir=s.directory, path=name, on=((ENOENT, None),), guard=step))


def _plan_cgroup(b: Builder, s: _Slots, req: SandboxRequest, facts: Facts) -> None:
    s.cgroup = b.slot("cgroup")
    if req.cgroup is None:
        return
    at = "/linux/cgroup_parent"
    plan_path(b, facts, req.cgroup, (), (), s.cgroup, s.directory, at)
    b.add(PARENT, Openat2(path=req.cgroup, flags=O_DIRECTORY, out=s.cgroup, at=at, why="for the pod's supervisor"))


def _plan_pin_mount(b: Builder, s: _Slots, req: SandboxRequest, undo: list[Step]) -> None:
    s.pins = b.slot("pins")
    made = Mkdirat(dir=s.directory, path=PINS, mode=0o700)
    mount = MoveMount(mount=s.pins, onto=s.directory, dst=PINS, flags=F_EMPTY_PATH)
    b.add(
        PARENT,
        made,
        OpenTree(dir=s.directory, path=PINS, flags=OPEN_TREE_CLONE, out=s.pins, why="a mount of its own"),
        mount,
        MountSetattr(
            mount=s.pins,
            path="",
            at_flags=AT_EMPTY_PATH,
            propagation=MS_UNBINDABLE,
            why="no pin propagates, and no recursive bind of /run in this namespace takes it along",
        ),
    )
    undo.append(Unlinkat(dir=s.directory, path=PINS, flags=AT_REMOVEDIR, guard=made))
    undo += [Unlinkat(dir=s.directory, path=f"{PINS}/{kind}", on=((ENOENT, None),), guard=made) for kind in KINDS]
    undo.append(Unlinkat(dir=s.directory, path=SHM, flags=AT_REMOVEDIR, on=((ENOENT, None),), guard=made))
    undo.append(Umount(path=f"{req.directory}/{PINS}", flags=MNT_DETACH | UMOUNT_NOFOLLOW, guard=mount))


def _plan_shm(b: Builder, s: _Slots, req: SandboxRequest, undo: list[Step]) -> None:
    if not req.shm_size:
        return
    fs, mount = b.slot("shm-fs"), b.slot("shm")
    why, at = "one /dev/shm for all containers of the pod", f"{OPTIONS}/ipc"
    options = {"size": str(req.shm_size), "mode": "1777"}
    if req.uid_mappings:
        options |= {"uid": str(_host_root(req.uid_mappings)), "gid": str(_host_root(req.gid_mappings))}
    b.add(
        PARENT,
        Mkdirat(dir=s.pins, path="shm", mode=0o755),
        Fsopen(fstype="tmpfs", out=fs, at=at, why=why),
        *(Fsconfig(fs=fs, cmd=SET_STRING, key=key, value=value, at=at) for key, value in options.items()),
        Fsconfig(fs=fs, cmd=CMD_CREATE, at=at),
        Fsmount(fs=fs, attrs=NOSUID | NODEV | NOEXEC, out=mount, at=at),
        MoveMount(mount=mount, onto=s.pins, dst="shm", flags=F_EMPTY_PATH, at=at),
    )


def _host_root(maps: tuple[IdMapping, ...]) -> int:
    """The host's id of the namespace's root, or of its lowest."""
    first = min(maps, key=lambda m: m.container_id)
    return first.host_id


def _plan_namespaces(b: Builder, s: _Slots, req: SandboxRequest, facts: Facts, undo: list[Step]) -> None:
    s.proc = b.slot("proc", inherit=True)
    b.add(
        PARENT,
        Openat2(path="/proc", flags=O_PATH_DIRECTORY, out=s.proc, why="the host's"),
        CheckFs(fd=s.proc, magic=PROC_SUPER_MAGIC, why="a real one (CVE-2019-16884)"),
        Clone3(image=facts.init_path, load=facts.memfd, flags=0, at=OPTIONS, why="a child makes the namespaces"),
    )
    _plan_child(b, s, req)
    if "user" in req.namespaces:
        _plan_maps(b, s, req)
    b.add(PARENT, Await(point=READY, patience_ms=PATIENCE_MS, why="they are made and set"))
    for kind in KINDS:
        if kind in req.namespaces:
            _plan_pin(b, s, kind)
    b.add(PARENT, Ack(), Reap(patience_ms=PATIENCE_MS, why="nothing but the pins holds them now"))


def _plan_child(b: Builder, s: _Slots, req: SandboxRequest) -> None:
    """Stage 1. The user namespace first, that the others be its own; what belongs to one of them is set from within."""
    if "user" in req.namespaces:
        at = f"{OPTIONS}/userns_options"
        b.add(
            STAGE1,
            Unshare(flags=names.NAMESPACES["user"], at=at, why="first: the others are to be its own"),
            Meet(point=MAPS, why="the parent writes the id maps"),
            Setresgid(gid=min(m.container_id for m in req.gid_mappings), at=at),
            Setresuid(uid=min(m.container_id for m in req.uid_mappings), at=at, why="and with it all capabilities"),
            Prctl(option=PR_SET_DUMPABLE, arg2=0, why="nobody who has these ids on the host may trace it"),
        )
    flags = 0
    for kind in req.namespaces:
        flags |= names.NAMESPACES[_FLAGS[kind]] if kind != "user" else 0
    if flags:
        b.add(STAGE1, Unshare(flags=flags, at=OPTIONS))
    if "uts" in req.namespaces and req.hostname:
        b.add(STAGE1, Sethostname(name=req.hostname, at="/hostname"))
    if "net" in req.namespaces:
        msg, _ = link_up("lo")
        b.add(STAGE1, Netlink(msg=msg, patch=NEXT, at=f"{OPTIONS}/network", why="loopback up"))
    b.add(STAGE1, *_sysctl_steps(s.proc, req.sysctls))
    b.add(STAGE1, Meet(point=READY, why="the parent pins them"))


def _sysctl_steps(proc: int, sysctls: dict[str, str]) -> list[Step]:
    return [
        WriteFile(
            dir=proc,
            path="sys/" + sysctl_path(key),
            data=value,
            magic=PROC_SUPER_MAGIC,
            resolve=RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS,
            at=f"/linux/sysctls/{key}",
            why="in one write to a descriptor (CVE-2022-0811)",
        )
        for key, value in sysctls.items()
    ]


def plan_late_sysctls(netns: str, sysctls: dict[str, str], facts: Facts) -> Plan:
    """Sets sysctls of a pod's network namespace when its interface is there. netns: the path of the pin."""
    b = Builder()
    proc, ns = b.slot("proc", inherit=True), b.slot("net-ns", inherit=True)
    b.add(
        PARENT,
        Openat2(path="/proc", flags=O_PATH_DIRECTORY, out=proc, why="the host's"),
        CheckFs(fd=proc, magic=PROC_SUPER_MAGIC, why="a real one (CVE-2019-16884)"),
        Openat2(path=netns, flags=O_NONBLOCK, out=ns, why="the pod's network namespace"),
        Clone3(image=facts.init_path, load=facts.memfd, flags=0, why="a child goes there"),
        Await(point=READY, patience_ms=PATIENCE_MS, why="they are set"),
        Ack(),
        Reap(patience_ms=PATIENCE_MS),
    )
    net = names.NAMESPACES["network"]
    b.add(STAGE1, Setns(ns=ns, nstype=net), *_sysctl_steps(proc, sysctls), Meet(point=READY))
    return b.plan()


def _plan_maps(b: Builder, s: _Slots, req: SandboxRequest) -> None:
    b.add(PARENT, Await(point=MAPS, patience_ms=PATIENCE_MS))
    for file, maps in (("gid_map", req.gid_mappings), ("uid_map", req.uid_mappings)):
        text = "".join(f"{m.container_id} {m.host_id} {m.size}\n" for m in maps)
        b.add(
            PARENT,
            WriteFile(
                dir=s.proc,
                path=file,
                pid=PID_PREFIX,
                data=text,
                magic=PROC_SUPER_MAGIC,
                resolve=RESOLVE_NO_MAGICLINKS,
                at=f"{OPTIONS}/userns_options/{file[:3]}s",
            ),
        )
    b.add(PARENT, Ack(why="the maps are written"))


def _plan_pin(b: Builder, s: _Slots, kind: str) -> None:
    ns, pin = b.slot(f"{kind}-ns"), b.slot(f"{kind}-pin")
    at = f"{OPTIONS}/{'userns_options' if kind == 'user' else 'network' if kind == 'net' else 'ipc'}"
    b.add(
        PARENT,
        Openat2(dir=s.proc, path=f"ns/{kind}", pid=PID_PREFIX, flags=O_PATH, out=ns, at=at),
        CreateFile(dir=s.pins, name=kind, mode=0o400, data=""),
        OpenTree(dir=ns, path="", flags=OPEN_TREE_CLONE | AT_EMPTY_PATH, out=pin, at=at),
        MoveMount(mount=pin, onto=s.pins, dst=kind, flags=F_EMPTY_PATH, at=at, why="lives on by this mount"),
    )


def plan_end(directory: str, cgroups: Iterable[str]) -> Plan:
    """The end of a sandbox, whole or half made, and of one that is gone. cgroups: absolute paths, each below no other
    that comes before it."""
    b = Builder()
    s = b.slot("directory")
    nothing, gone = Label("there is none"), ((ENOENT, None),)
    umount = Umount(path=f"{directory}/{PINS}", flags=MNT_DETACH | UMOUNT_NOFOLLOW, why="the pins go, and /dev/shm")
    umount.on = ((EINVAL, None), (ENOENT, None))
    b.add(PARENT, umount)
    for i, path in enumerate(cgroups):
        held, skip = b.slot(f"cgroup-{i}"), Label(f"no cgroup {i}")
        b.add(
            PARENT,
            Openat2(path=path, flags=O_DIRECTORY, out=held, on=((ENOENT, skip),)),
            RemoveCgroup(path=path, cgroup=held, kill=1, on=gone),
            skip,
        )
    b.add(
        PARENT,
        Openat2(path=directory, flags=O_PATH_DIRECTORY, out=s, on=((ENOENT, nothing),)),
        Unlinkat(dir=s, path=SHM, flags=AT_REMOVEDIR, on=gone),
        *(Unlinkat(dir=s, path=f"{PINS}/{kind}", on=gone) for kind in KINDS),
        Unlinkat(dir=s, path=PINS, flags=AT_REMOVEDIR, on=gone),
        *(Unlinkat(dir=s, path=name, on=gone) for name in FILES),
        Unlinkat(dir=s, path=RECORD, on=gone, why="last: until then an end finds what is left"),
        nothing,
    )
    return b.plan()


def plan_private_mount(path: str) -> Plan:
    """Makes a directory a mount of its own that gives nothing to others, nor gets anything: who has a slave of the
    host's /run sees the directory, and none of the mounts in it."""
    b = Builder()
    mount, onto = b.slot("mount"), b.slot("onto")
    moved = MoveMount(mount=mount, onto=onto, dst="", flags=F_EMPTY_PATH | T_EMPTY_PATH)
    b.add(
        PARENT,
        Openat2(path=path, flags=O_PATH_DIRECTORY, out=onto),
        OpenTree(dir=onto, path="", flags=OPEN_TREE_CLONE | AT_EMPTY_PATH, out=mount),
        moved,
        MountSetattr(mount=mount, path="", at_flags=AT_EMPTY_PATH, propagation=MS_PRIVATE),
    )
    b.add(UNDO, Umount(path=path, flags=MNT_DETACH | UMOUNT_NOFOLLOW, guard=moved))
    return b.plan()
