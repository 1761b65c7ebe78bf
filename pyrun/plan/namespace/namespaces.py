"""Stage 1: what the process must be before it becomes the container's init.

Order, each for a reason: oom_score_adj and raised limits first, as the user namespace takes the right to them away,
and to namespaces by path that it does not own; the user namespace next, joined or made, because it gives the
capabilities for all others, those that are made and those that a joined one owns; then ids 0 in it; time
before the clone, as an offset can't be set once a process is inside; the cgroup namespace after it, by stage 2, for its
root is the cgroup that one is in; the PID namespace after dumpable is off, so
nothing in there can trace us or open our descriptors (CVE-2016-9962); mount last, because it changes what paths mean.
"""

from __future__ import annotations

from ...errors import ConfigError
from ...facts import CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN, Facts
from ...oci import names
from ...oci.model import IdMapping, Process, Rlimit, Spec
from ..model.plan import Builder
from ..model.steps import (
    PARENT,
    PID_MARK,
    PID_PREFIX,
    STAGE1,
    STAGE2,
    Ack,
    Await,
    CheckNs,
    Clone3Init,
    Close,
    Label,
    Meet,
    Openat2,
    Prctl,
    Setns,
    Setresgid,
    Setresuid,
    Setrlimit,
    Spawn,
    Unshare,
    WriteFile,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MAPS, HOOKS, READY = 1, 2, 3  # the rendezvous; scopes.py has 4, rootfs_plan.py 5
O_NONBLOCK = 0o4000  # a FIFO has no place there, and must not make us wait for its writer
PATIENCE_MS = 120_000  # for a child of ours where no hook, agent or other program of the user's is waited for
PR_SET_DUMPABLE = 4
NEWUSER, NEWTIME = names.NAMESPACES["user"], names.NAMESPACES["time"]
EPERM, EBADF, EBUSY, EINVAL = 1, 9, 16, 22
PROC_SUPER_MAGIC = 0x9FA0
RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS = 0x01, 0x02
NEWCGROUP = names.NAMESPACES["cgroup"]
_FILES = {  # in the order in which they are joined
    "ipc": "ipc",
    "uts": "uts",
    "network": "net",
    "time": "time",
    "cgroup": "cgroup",
    "pid": "pid_for_children",
    "mount": "mnt",
}
_UNTRACED = "nothing in a joined namespace may trace us (CVE-2016-9962)"


def namespaces(spec: Spec) -> dict[str, tuple[int, str | None]]:
    """Type -> (index in config.json, path to join or None)."""
    found = spec.linux.namespaces if spec.linux else ()
    return {ns.type: (i, ns.path) for i, ns in enumerate(found)}


def new_userns(spec: Spec) -> bool:
    return namespaces(spec).get("user", (0, ""))[1] is None


def is_born_early(spec: Spec) -> bool:
    """Whether stage 1 is in the container's cgroup already. Else stage 2 is the first to be, and what the kernel takes
    to make namespaces is not charged to the container. In a user namespace stage 1 may not put it there any more."""
    return "user" in namespaces(spec)


def open_namespaces(b: Builder, spec: Spec, proc: int) -> dict[str, int]:
    """Parent: opens each namespace to join, while paths mean what config.json's author saw. Type -> slot. proc: the
    slot of /proc.

    Our own mount namespace is refused: what is mounted there, and pivot_root(2), would change the host."""
    slots = {}
    for kind, (i, path) in namespaces(spec).items():
        if path is not None:
            slots[kind] = b.slot(f"{kind}-ns", inherit=True)
            at, own = f"/linux/namespaces/{i}/path", "self/ns/mnt" if kind == "mount" else ""
            b.add(
                PARENT,
                Openat2(path=path, flags=O_NONBLOCK, out=slots[kind], at=at, why=f"the {kind} namespace to join"),
                CheckNs(
                    ns=slots[kind],
                    nstype=names.NAMESPACES[kind],
                    proc=proc,
                    own=own,
                    at=at,
                    why=f"it must be one of kind {kind}",
                ),
            )
    return slots


def plan_stage1(
    b: Builder,
    spec: Spec,
    facts: Facts,
    joins: dict[str, int],
    proc: int,
    cgroup: int | None = None,
    own_mounts: Callable[[], None] | None = None,
) -> None:
    """Stage 1 from its start to the clone of the container's init. proc: the slot of the host's /proc; cgroup: of the
    one that the init is born in, if that is not stage 1's. own_mounts: adds the steps by which stage 1 makes the mount
    namespace, where the clone does not."""
    kinds = namespaces(spec)
    if spec.process is not None:
        plan_before_userns(b, spec.process, facts, proc)
    if "user" in kinds:
        _join_as_ourselves(b, facts, joins, kinds)
    _user(b, spec, joins, kinds, proc)
    if kinds.get("time", (0, ""))[1] is None:
        _new_time(b, spec, proc, kinds)
    b.add(STAGE1, Prctl(option=PR_SET_DUMPABLE, arg2=0, why=_UNTRACED))
    if "user" in joins:
        _join_as_its_root(b, facts, joins, kinds, proc)
    elif "user" not in kinds:
        b.add(STAGE1, *(_join(joins, kinds, kind) for kind in _FILES if kind in joins and kind != "cgroup"))
    flags, before = 0, ("user", "time", "cgroup", "mount") if own_mounts else ("user", "time", "cgroup")
    if own_mounts:
        own_mounts()
    for kind, (_, path) in kinds.items():
        if path is None and kind not in before:
            flags |= names.NAMESPACES[kind]
    b.add(STAGE1, Close(fd=proc, why="the host's: a joined PID namespace may see the init from its first moment"))
    init = Clone3Init(flags=flags, at="/linux/namespaces", why="the container's init, in its new namespaces")
    if cgroup is not None:
        without = Label("no cgroup")
        born = Clone3Init(flags=flags, cgroup=cgroup, at="/linux/namespaces", why=init.why + ", born in its cgroup")
        born.on = ((EBADF, without),) if facts.rootless else ()  # which may have to go without one
        b.add(STAGE1, born, *((without, init) if facts.rootless else ()))
    else:
        b.add(STAGE1, init)


def _join(joins: dict[str, int], kinds: dict[str, tuple[int, str | None]], kind: str) -> Setns:
    at, flag = f"/linux/namespaces/{kinds[kind][0]}", names.NAMESPACES[kind]
    return Setns(ns=joins[kind], nstype=flag, at=at, why=f"join the {kind} namespace")


def _join_as_ourselves(
    b: Builder, facts: Facts, joins: dict[str, int], kinds: dict[str, tuple[int, str | None]]
) -> None:
    """Before the user namespace, which takes the right to what is not its own. A new one owns none of these; what we
    may not join now may be the own one of one that is joined, and is tried again there, without a rule."""
    if "user" in joins and not facts.has_cap(CAP_SYS_ADMIN):
        return
    again = ((EPERM, None),) if "user" in joins else ()
    steps = [_join(joins, kinds, kind) for kind in _FILES if kind in joins]
    if steps:
        b.add(STAGE1, Prctl(option=PR_SET_DUMPABLE, arg2=0, why=_UNTRACED))
    for step in steps:
        step.on = again
        b.add(STAGE1, step)


def _join_as_its_root(
    b: Builder, facts: Facts, joins: dict[str, int], kinds: dict[str, tuple[int, str | None]], proc: int
) -> None:
    """In a user namespace that was joined: what could not be joined before. The kernel says which, and not an errno."""
    for kind in _FILES:
        if kind not in joins:
            continue
        step, joined = _join(joins, kinds, kind), Label(f"{kind} is joined")
        if facts.has_cap(CAP_SYS_ADMIN):
            look = CheckNs(
                ns=joins[kind], nstype=step.args["nstype"], proc=proc, own=f"self/ns/{_FILES[kind]}", at=step.at
            )
            look.on, look.why = ((EBUSY, joined),), "joined already?"
            b.add(STAGE1, look)
        b.add(STAGE1, step, joined)


def plan_entered(b: Builder, spec: Spec, joins: dict[str, int], cgroup: int | None) -> None:
    """Stage 2, in the container's cgroup, and now in its cgroup namespace: only from outside of that may one be born
    elsewhere (nsdelegate), and a new one's root is where one is. cgroup: what stage 1 needed for it."""
    if cgroup is not None:
        b.add(STAGE2, Close(fd=cgroup, why="a directory of the host's (CVE-2024-21626)"))
    if "cgroup" not in namespaces(spec):
        return
    at = f"/linux/namespaces/{namespaces(spec)['cgroup'][0]}"
    if "cgroup" in joins:
        if not is_born_early(spec):  # else stage 1 has joined it
            b.add(STAGE2, _join(joins, namespaces(spec), "cgroup"))
    else:
        b.add(STAGE2, Unshare(flags=NEWCGROUP, at=at, why="its root is the container's cgroup"))


def plan_before_userns(b: Builder, process: Process, facts: Facts, proc: int) -> None:
    """What takes rights that a user namespace takes away."""
    if process.oom_score_adj is not None:
        b.add(
            STAGE1,
            WriteFile(
                dir=proc,
                path="self/oom_score_adj",
                data=str(process.oom_score_adj),
                magic=PROC_SUPER_MAGIC,
                resolve=RESOLVE_NO_XDEV,
                at="/process/oomScoreAdj",
                why="before a user namespace takes the right away",
            ),
        )
    plan_rlimit_raises(b, process.rlimits, facts)


def plan_rlimit_raises(b: Builder, rlimits: tuple[Rlimit, ...], facts: Facts, at: str = "/process/rlimits") -> None:
    """Hard limits above ours, while we may still raise them."""
    for i, limit in enumerate(rlimits):
        number = names.RLIMITS[limit.type]
        if limit.hard > facts.max_hard.get(number, limit.hard):
            b.add(
                STAGE1,
                Setrlimit(
                    resource=number,
                    soft=limit.soft,
                    hard=limit.hard,
                    raise_only=1,
                    at=f"{at}/{i}/hard",
                    why="above the runtime's own hard limit",
                ),
            )


def _user(b: Builder, spec: Spec, joins: dict[str, int], kinds: dict[str, tuple[int, str | None]], proc: int) -> None:
    if "user" not in kinds:
        return
    at = f"/linux/namespaces/{kinds['user'][0]}"
    if "user" in joins:
        inside = Label("in it already")
        own = CheckNs(ns=joins["user"], nstype=NEWUSER, proc=proc, own="self/ns/user", on=((EBUSY, inside),), at=at)
        own.why = "our own can't be joined; any other must be"
        why = "first: it gives the right to the others"
        b.add(STAGE1, own, Setns(ns=joins["user"], nstype=NEWUSER, at=at, why=why), inside)
    else:
        b.add(
            STAGE1,
            Unshare(flags=NEWUSER, at=at, why="first: it gives the right to the others"),
            Prctl(option=PR_SET_DUMPABLE, arg2=1, why="so that newuidmap may write our maps"),
            Meet(point=MAPS, why="the parent writes the id maps"),
        )
    # A namespace that we join may have no root: then we stay who we are for a while, and process.user has no such rule.
    rootless = ((EINVAL, None),) if "user" in joins else ()
    maps = (spec.linux.uid_mappings, spec.linux.gid_mappings) if spec.linux else ((), ())
    uid, gid = map(_first_id, maps)
    b.add(
        STAGE1,
        Prctl(option=PR_SET_DUMPABLE, arg2=0, why="the maps are written"),
        Setresgid(gid=gid, on=rootless, why="root of the namespace, where it has one"),
        Setresuid(uid=uid, on=rootless, why="and with it all its capabilities"),
    )


def _first_id(maps: tuple[IdMapping, ...]) -> int:
    """Root, or where a map has none the lowest id, as one without a mapping could make no files (EOVERFLOW)."""
    return min((m.container_id for m in maps), default=0)


def _new_time(b: Builder, spec: Spec, proc: int, kinds: dict[str, tuple[int, str | None]]) -> None:
    b.add(
        STAGE1,
        Unshare(
            flags=NEWTIME,
            at=f"/linux/namespaces/{kinds['time'][0]}",
            why="before the clone: afterwards its clocks can't be set",
        ),
    )
    offsets = spec.linux.time_offsets if spec.linux else None
    if offsets and "user" in kinds:
        b.add(STAGE1, Prctl(option=PR_SET_DUMPABLE, arg2=1, why="or our own file in /proc is the host root's"))
    for name, value in (("monotonic", offsets.monotonic), ("boottime", offsets.boottime)) if offsets else ():
        if value is not None:
            b.add(
                STAGE1,
                WriteFile(
                    dir=proc,
                    path="self/timens_offsets",
                    data=f"{name} {value.secs} {value.nanosecs}\n",
                    magic=PROC_SUPER_MAGIC,
                    resolve=RESOLVE_NO_XDEV,
                    at=f"/linux/timeOffsets/{name}",
                    why=f"the container's {name} clock",
                ),
            )


def plan_id_maps(b: Builder, spec: Spec, facts: Facts, proc: int) -> None:
    """Parent: answers the MAPS rendezvous of a new user namespace."""
    if not new_userns(spec):
        return
    linux = spec.linux
    assert linux is not None
    if not linux.uid_mappings or not linux.gid_mappings:
        which = "uidMappings" if not linux.uid_mappings else "gidMappings"
        raise ConfigError(
            [(f"/linux/{which}", "a new user namespace needs id mappings")],
            hint="without them no process could run in it; map at least container id 0",
        )
    b.add(PARENT, Await(point=MAPS, patience_ms=PATIENCE_MS, why="stage 1 is in its new user namespace"))
    _map(b, facts, proc, "gid", linux.gid_mappings, CAP_SETGID, facts.egid)
    _map(b, facts, proc, "uid", linux.uid_mappings, CAP_SETUID, facts.euid)
    b.add(PARENT, Ack(why="the maps are written"))


def _write_map(b: Builder, proc: int, file: str, text: str, at: str | None, why: str) -> None:
    b.add(
        PARENT,
        WriteFile(
            dir=proc,
            path=file,
            pid=PID_PREFIX,
            data=text,
            magic=PROC_SUPER_MAGIC,
            resolve=RESOLVE_NO_MAGICLINKS,
            at=at,
            why=why,
        ),
    )


def _map(b: Builder, facts: Facts, proc: int, kind: str, maps: tuple[IdMapping, ...], cap: int, own: int) -> None:
    at = f"/linux/{kind}Mappings"
    if facts.has_cap(cap):
        text = "".join(f"{m.container_id} {m.host_id} {m.size}\n" for m in maps)
        _write_map(b, proc, f"{kind}_map", text, at, "written at once, as the kernel takes one write")
        return
    if len(maps) == 1 and maps[0].size == 1 and maps[0].host_id == own:
        if kind == "gid":
            _write_map(b, proc, "setgroups", "deny", None, "an unprivileged gid map needs it")
        text = f"{maps[0].container_id} {own} 1\n"
        _write_map(b, proc, f"{kind}_map", text, at, "our own id, which needs no privilege")
        return
    helper = facts.newuidmap if kind == "uid" else facts.newgidmap
    if helper is None:
        raise ConfigError(
            [(at, f"needs new{kind}map, which is not installed")],
            hint=f"install uidmap and give the user ranges in /etc/sub{kind}, or map only the own id",
        )
    words = [str(v) for m in maps for v in (m.container_id, m.host_id, m.size)]
    b.add(
        PARENT,
        Spawn(
            path=helper,
            argv=(f"new{kind}map", PID_MARK, *words),
            at=at,
            why=f"setuid helper: the ranges come from /etc/sub{kind}",
        ),
    )
