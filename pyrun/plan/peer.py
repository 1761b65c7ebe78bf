"""The plans by which another OCI runtime (runc, crun) makes a container of a pod's, and execs into one.

A maker of the supervisor's carries them out. It becomes a subreaper first: the container's init is left to it when the
runtime's process ends, and by its own end to the supervisor, as is one that we made ourselves. The root is mounted in a
mount namespace of the maker's: the container's is made of that one, and the node's never sees it, so nothing is left to
be unmounted whoever is killed.

    Unshare(NEWNS)                                          only for a create
    MountSetattr("/", slave)                                only for a user namespace
    Prctl(subreaper), Bind(console)
    OpenTree, MountSetattr, Openat2, Dup3                   a standard stream that is /dev/null
    mount the overlay on `root`                             only for a create
    Spawn(RUNTIME create --pid-file pid …)                  with the container's streams
    ReceiveFd(console), SendFd                              the terminal, to the supervisor or the client
    AdoptPid(pid)

Into a user namespace the runtime's init goes before it takes the root, and is nobody of the node's then: it could not
reach one below directories of ours, which are root's alone. So that root is ROOT, which everyone may go through; what
is mounted there is the maker's alone, and its namespace gives nothing back to the node's, as a container's in a user
namespace may not either.

A runtime gives the standard streams to the container's user. crun 1.8 does so with /dev/null too, the node's own: an
exec's user could take it from all. So what is /dev/null is opened by a read-only mount of it, through which nobody can
change its owner or mode, and everyone writes.

What the runtime is told by relative names (pid file, console socket, log) lies in its working directory: an address of
a socket may be 107 bytes long at most.
"""

from __future__ import annotations

from .model.plan import Builder, Plan
from .model.steps import (
    O_PATH,
    PARENT,
    UNDO,
    AdoptPid,
    Bind,
    Dup,
    Dup3,
    MakeTarget,
    MountSetattr,
    MoveMount,
    Openat2,
    OpenTree,
    Prctl,
    ReceiveFd,
    SendFd,
    Spawn,
    Unshare,
)
from .rootfs.mount_options import MS_SLAVE, RDONLY
from .rootfs.overlay import NEWNS, mount_overlay
from .rootfs.rootfs_plan import AT_EMPTY_PATH, AT_RECURSIVE, BY_FD, CLONE_FD, NONE, OPEN_TREE_CLONE, clean_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .model.overlay import Overlay

PID_FILE, CONSOLE, LOG, PROCESS = "pid", "console", "log.json", "process.json"
CONSOLE_FD = 3  # where a maker has the socket that the terminal goes to
PR_SET_CHILD_SUBREAPER = 36
UNDO_MS = 30_000
NULL = "/dev/null"
O_RDWR = 2
AT = "/runtime_handler"
ROOT = "/run/pyrun-root"  # in a user namespace; empty for all but a maker


class Peer:
    """A runtime: program, an absolute path; options, those before its verb; env, NAME=VALUE."""

    __slots__ = ("env", "options", "program")

    def __init__(self, program: str, options: tuple[str, ...], env: tuple[str, ...]) -> None:
        self.program, self.options, self.env = program, options, env

    def argv(self, *words: str) -> tuple[str, ...]:
        return (self.program, *self.options, *words)


def plan_peer_create(
    peer: Peer,
    id: str,
    directory: str,
    root: str,
    overlay: Overlay,
    *,
    tty: bool,
    nulls: tuple[int, ...],
    timeout_ms: int,
    label: str | None = None,
    readonly: bool = False,
    userns: str | None = None,
) -> Plan:
    """directory: the bundle. root: where its config.json has the root, an empty directory, on a mount that propagates
    to nobody. nulls: the standard streams that are /dev/null. readonly: the root will be, and the image's volumes will
    not. userns: the file of the user namespace that the container joins; root is ROOT then."""
    b = Builder()
    b.add(PARENT, Unshare(flags=NEWNS, at=AT, why="what is mounted is seen by the container alone"))
    maps = NONE
    if userns is not None:
        maps, why = b.slot("user-namespace"), "nor by the node, whose mounts are this namespace's from here on"
        b.add(
            PARENT,
            MountSetattr(path="/", at_flags=AT_RECURSIVE, propagation=MS_SLAVE, at=AT, why=why),
            Openat2(path=userns, flags=0, out=maps, at=AT, why="whose mappings the layers take"),
        )
    there, listener = _begin(b, directory, tty, nulls)
    base, top = b.slot("root-directory"), b.slot("root")
    b.add(PARENT, Openat2(path=root + "/", flags=O_PATH, out=base, at=AT))
    mount_overlay(b, PARENT, label, overlay, base, maps)
    b.add(PARENT, Openat2(path=root + "/", flags=O_PATH, out=top, at=AT, why="what was mounted"))
    _volumes(b, overlay, top, readonly)
    words = ("create", "--pid-file", PID_FILE, *(("--console-socket", CONSOLE) if tty else ()), id)
    _run(b, peer, words, there, timeout_ms)
    _end(b, there, listener)
    delete = peer.argv("delete", "--force", id)
    b.add(UNDO, Spawn(path=peer.program, argv=delete, env=peer.env, timeout_ms=UNDO_MS, at=AT))
    return b.plan()


def plan_peer_exec(
    peer: Peer,
    id: str,
    directory: str,
    *,
    cgroup: str | None,
    tty: bool,
    nulls: tuple[int, ...],
    timeout_ms: int,
) -> Plan:
    """directory: of this exec, with process.json. cgroup: the one below the container's that it is to be in. nulls: as
    plan_peer_create() has them."""
    b = Builder()
    there, listener = _begin(b, directory, tty, nulls)
    words = ["exec", "--detach", "--process", PROCESS, "--pid-file", PID_FILE]
    words += ["--console-socket", CONSOLE] if tty else []
    words += ["--cgroup", cgroup] if cgroup else []
    _run(b, peer, (*words, id), there, timeout_ms)
    _end(b, there, listener)
    return b.plan()


def _begin(b: Builder, directory: str, tty: bool, nulls: tuple[int, ...]) -> tuple[int, int | None]:
    """Slots: the working directory, and with a terminal the socket that it comes to."""
    there, listener = b.slot("directory"), None
    b.add(
        PARENT,
        Prctl(option=PR_SET_CHILD_SUBREAPER, arg2=1, at=AT, why="what the runtime leaves running is left to us"),
        Openat2(path=directory + "/", flags=0, out=there, at=AT),
    )
    if nulls:
        _keep_null(b, nulls)
    if tty:
        listener = b.slot("console")
        b.add(PARENT, Bind(dir=there, name=CONSOLE, mode=0o600, listen=1, out=listener, at="/tty"))
    return there, listener


def _keep_null(b: Builder, nulls: tuple[int, ...]) -> None:
    """What of a mount that is attached nowhere is opened by its descriptor's name, so that gets a number we know."""
    mount, null, why = b.slot("null-mount"), b.slot("null"), "the node's, whose owner stays"
    first, path = nulls[0], f"/proc/self/fd/{nulls[0]}"
    b.add(
        PARENT,
        OpenTree(path=NULL, flags=OPEN_TREE_CLONE, out=mount, at=AT, why=why),
        MountSetattr(mount=mount, at_flags=AT_EMPTY_PATH, set=RDONLY, at=AT),
        Dup3(fd=mount, number=first, at=AT),
        Openat2(path=path, flags=O_RDWR, out=null, at=AT),
        *(Dup3(fd=null, number=number, at=AT) for number in nulls),
    )


def _volumes(b: Builder, overlay: Overlay, top: int, readonly: bool) -> None:
    """The image's volumes, as plan/rootfs/overlay.py makes them for our own containers."""
    target, mount = b.slot("volume"), b.slot("volume-mount")
    for path in overlay.volumes:
        why = "a volume of the image's"
        b.add(PARENT, MakeTarget(root=top, path=clean_path(path), mode=0o755, mount=1, out=target, at=AT, why=why))
        if readonly:
            b.add(
                PARENT,
                OpenTree(dir=target, path="", flags=CLONE_FD, out=mount, at=AT, why="stays writable"),
                MoveMount(mount=mount, onto=target, flags=BY_FD, at=AT, why=f"on itself: {clean_path(path)}"),
            )


def _run(b: Builder, peer: Peer, words: tuple[str, ...], there: int, timeout_ms: int) -> None:
    argv = peer.argv("--log", LOG, "--log-format", "json", *words)
    b.add(
        PARENT,
        Spawn(path=peer.program, argv=argv, env=peer.env, dir=there, stdio=1, timeout_ms=timeout_ms, at=AT),
    )


def _end(b: Builder, there: int, listener: int | None) -> None:
    if listener is not None:
        master, to = b.slot("terminal"), b.slot("console-socket")
        b.add(
            PARENT,
            ReceiveFd(listener=listener, out=master, at="/tty"),
            Dup(fd=CONSOLE_FD, out=to, at="/tty"),
            SendFd(socket=to, fd=master, data="console", at="/tty", why="to the supervisor, or to the client"),
        )
    b.add(PARENT, AdoptPid(dir=there, name=PID_FILE, at=AT))
