"""The plan of `exec`: one more process in a container that is there.

Parent: a pidfd of the container's init, its cgroup, the sockets. Stage 1 stays outside of that cgroup, so that an exec
counts as one process there. It makes itself untraceable before anything else (CVE-2016-9962), and joins by the pidfd
each namespace that differs from ours, but for the two that would take away the right to the cgroup: the cgroup
namespace, and the user namespace where we have rights over it already. Stage 2 is its child, because only a child is in
a joined PID namespace, and is born in the cgroup; it joins the rest, gets its terminal, its identity, and execs.
Everything that it touches in the container may be hostile, so labels are written through the host's /proc, and the
terminal is opened on what is proved to be devpts.

A container with CAP_SYS_PTRACE and no user namespace of its own may open all that stage 2 has, from the moment it is
born in the PID namespace. So stage 2 is born with nothing that leads to the host: what needs the host's /proc or a
root of its own is done by stage 1, and the cgroup is a mount of itself, above which there is nothing.

A cgroup that can't take a birth (it is full, it hands controllers to its children, this user may not write to it) may
take a move: stage 2 then waits until the parent has moved it, or systemd has.
"""

from __future__ import annotations

from ..errors import PyrunError
from ..facts import CAP_SYS_ADMIN, Facts
from ..oci import names
from ..oci.model import Process, Spec
from .cgroup.birth import plan_birth_mount
from .model.plan import Builder, Plan
from .model.request import Request
from .model.steps import (
    ANY,
    O_DIRECTORY,
    O_PATH_DIRECTORY,
    PARENT,
    PID_DATA,
    STAGE1,
    STAGE2,
    Ack,
    Await,
    AwaitPid,
    CheckFs,
    Chroot,
    Clone3,
    Clone3Init,
    Close,
    Connect,
    Dup,
    Execve,
    Goto,
    Label,
    Meet,
    Openat2,
    Openpt,
    PidfdOpen,
    Prctl,
    SchedSetaffinity,
    SendFd,
    Setns,
    Setresgid,
    Setresuid,
    Setsid,
    SetStdio,
    TtyOutput,
    WaitExec,
    WriteFile,
    Yield,
)
from .namespace.namespaces import PATIENCE_MS, PROC_SUPER_MAGIC, READY, plan_before_userns
from .process.process import (
    cpu_mask,
    environment,
    keeps_groups,
    plan_affinity,
    plan_identity,
    plan_key_label,
    plan_keyring,
    plan_labels,
)
from .process.seccomp import SeccompProgram, plan_seccomp
from .process.told import plan_agent, plan_engine

NONE = 0xFFFF
ONLCR = 4
PR_SET_DUMPABLE = 4
EPERM, ENOENT, EBADF, EACCES, EBUSY, EINVAL, ENAMETOOLONG = 1, 2, 9, 13, 16, 22, 36
RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH = 1, 2, 4, 8
DEVPTS_SUPER_MAGIC, CGROUP2_SUPER_MAGIC = 0x1CD1, 0x63677270
NEWUSER, NEWCGROUP = names.NAMESPACES["user"], names.NAMESPACES["cgroup"]
OUTSIDE = 1000  # what AwaitPid gives when stage 2 is not in the container's cgroup; no errno that stage 1 may fail with
ATTACH = 5  # the code of the Yield for which systemd moves stage 2


class Target:
    """The running container, as facts.

    pid and start of its init; namespaces: CLONE_NEW* of those that are not ours; setgroups: its user namespace allows
    the call; cgroup: its absolute path, None without one; init_cgroup: where its init has moved to meanwhile, or None;
    systemd: the cgroup is a unit's; chroot: it shares our mount namespace but has a root of its own; affinity: our own
    CPU mask.
    """

    __slots__ = (
        "affinity",
        "cgroup",
        "chroot",
        "init_cgroup",
        "namespaces",
        "pid",
        "setgroups",
        "start",
        "systemd",
    )

    def __init__(self, **values: object) -> None:
        self.pid = self.start = self.namespaces = 0
        self.setgroups = True
        self.cgroup: str | None = None
        self.init_cgroup: str | None = None
        self.systemd = self.chroot = False
        self.affinity = b""
        for name, value in values.items():
            setattr(self, name, value)


class _Slots:
    __slots__ = ("birth", "cgroup", "console", "init", "init_cgroup", "pidfd", "proc", "root", "socket")
    birth: int  # the cgroup, as stage 2 may see it
    cgroup: int
    console: int
    init: int
    init_cgroup: int
    pidfd: int
    proc: int
    root: int
    socket: int


def plan_exec(spec: Spec, process: Process, facts: Facts, target: Target, req: Request) -> Plan:
    """The plan of exec. spec: the container's, for its seccomp profile and its state. Raises PyrunError."""
    b = Builder(3 + req.preserve_fds)
    s = _Slots()
    seccomp = plan_seccomp(spec.linux.seccomp if spec.linux else None, arch=facts.arch, nnp=process.no_new_privileges)
    s.proc, s.init, s.root = (
        b.slot("proc", inherit=True),
        b.slot("init", inherit=True),
        b.slot("root", inherit=target.chroot),
    )
    b.add(
        PARENT,
        Openat2(path="/proc", flags=O_PATH_DIRECTORY, out=s.proc, why="the host's"),
        CheckFs(fd=s.proc, magic=PROC_SUPER_MAGIC, why="a real one (CVE-2019-16884)"),
        PidfdOpen(
            pid=target.pid,
            start=target.start,
            proc=s.proc,
            out=s.init,
            why="the container's init, and nobody who got its number",
        ),
    )
    if target.chroot:
        b.add(
            PARENT,
            Openat2(
                dir=s.proc,
                path=f"{target.pid}/root",
                flags=O_PATH_DIRECTORY,
                out=s.root,
                why="no mount namespace of its own leads there",
            ),
        )
    if req.stdio is not None:
        from .process.stdio import plan_stdio

        plan_stdio(b, req)
    _plan_sockets(b, s, process, req)
    _open_cgroup(b, s, spec, facts, target, req)
    _plan_birth(b, process, facts, target)
    late = _plan_join(b, process, facts, target, req, s)
    _plan_late_join(b, target, s, late)
    _plan_process(b, spec, process, facts, target, req, s, seccomp)
    _plan_entered(b, spec, facts, target, req, s)
    _plan_ready(b, spec, facts, target, req, s, seccomp)
    return b.plan()


def _plan_sockets(b: Builder, s: _Slots, process: Process, req: Request) -> None:
    """Connected before there is anything to undo."""
    s.console = s.socket = NONE
    s.pidfd = b.slot("pidfd")
    if process.terminal:
        s.console = b.slot("console-socket", inherit=True)
        b.add(
            PARENT,
            Connect(path=req.console_socket, out=s.console, why="the terminal's master goes there")
            if req.console is None
            else Dup(fd=req.console, out=s.console, why="the terminal's master comes back to us"),
        )
    if req.pidfd_socket:
        s.socket = b.slot("pidfd-socket")
        b.add(PARENT, Connect(path=req.pidfd_socket, out=s.socket, why="a pidfd of the process goes there"))


# --- stage 1: into the container ------------------------------------------------------------------------------------


def _open_cgroup(b: Builder, s: _Slots, spec: Spec, facts: Facts, target: Target, req: Request) -> None:
    """The container's cgroup, or the one below it that --cgroup names.

    Stage 2 is born by a descriptor, which it then has. A user namespace that is not ours guards that: only who may
    trace in the one of pyrun-init's memory could open it. Else it must be a mount of itself, or there is no birth, and
    the parent moves stage 2."""
    s.cgroup = s.birth = s.init_cgroup = NONE
    if target.cgroup is None:
        if req.subcgroup is not None:
            raise PyrunError("--cgroup: the container has no cgroup")
        return
    guarded = bool(target.namespaces & NEWUSER) and not facts.has_cap(CAP_SYS_ADMIN)
    s.cgroup = s.birth = b.slot("cgroup", inherit=guarded)
    gone = ((ENOENT, None),) if _may_be_gone(spec, facts, req) else ()
    b.add(PARENT, Openat2(path=target.cgroup, flags=O_DIRECTORY, out=s.cgroup, on=gone, why="the container's"))
    below = (req.subcgroup or "").strip("/")
    if below:
        b.add(
            PARENT,
            Openat2(
                dir=s.cgroup,
                path=below,
                flags=O_DIRECTORY,
                resolve=RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
                out=s.cgroup,
                why="--cgroup",
            ),
        )
    if not guarded:
        s.birth = plan_birth_mount(b, s.cgroup, without=((EPERM, None), (EBADF, None)))
    if target.init_cgroup is not None and req.subcgroup is None:
        s.init_cgroup = b.slot("init-cgroup")
        why, none = "where the init has moved to", ((ENOENT, None), (ENAMETOOLONG, None))  # then the container's does
        b.add(
            PARENT,
            Openat2(path=target.init_cgroup, flags=O_DIRECTORY, out=s.init_cgroup, on=none, why=why),
        )


def _may_be_gone(spec: Spec, facts: Facts, req: Request) -> bool:
    """It was never there, where the user may not make one; but limits must not be left behind with it."""
    return facts.rootless and req.subcgroup is None and not has_limits(spec)


def _plan_birth(b: Builder, process: Process, facts: Facts, target: Target) -> None:
    affinity = process.exec_cpu_affinity
    initial = affinity.initial if affinity else None
    if initial:
        at = "/process/execCPUAffinity/initial"
        b.add(PARENT, SchedSetaffinity(mask=cpu_mask(initial, at), at=at, why="before the container's cgroup"))
    b.add(PARENT, Clone3(image=facts.init_path, load=facts.memfd, flags=0, why="stage 1"))
    if initial:
        b.add(PARENT, SchedSetaffinity(mask=target.affinity, why="our own CPUs again"))


def _plan_join(b: Builder, process: Process, facts: Facts, target: Target, req: Request, s: _Slots) -> int:
    """Stage 1 up to stage 2. Returns the namespaces that are left for that."""
    plan_before_userns(b, process, facts, s.proc)
    plan_labels(b, STAGE1, process, s.proc)
    if req.keyring:
        plan_key_label(b, STAGE1, process, s.proc)
    b.add(
        STAGE1,
        Close(fd=s.proc, why="the host's"),
        Prctl(
            option=PR_SET_DUMPABLE,
            arg2=0,
            why="nothing in the container may trace us or open our descriptors (CVE-2016-9962)",
        ),
    )
    # Where only the user namespace gives the right to the others it is joined now, under our own uid, which owns it.
    late = target.namespaces & (NEWCGROUP | (NEWUSER if facts.has_cap(CAP_SYS_ADMIN) else 0))
    early = target.namespaces & ~late
    if early & NEWUSER:
        b.add(STAGE1, Setns(ns=s.init, nstype=NEWUSER, why="first: it gives the right to the others"))
    if early & ~NEWUSER:
        b.add(STAGE1, Setns(ns=s.init, nstype=early & ~NEWUSER, why="all at once, as the init has them"))
    if target.chroot:
        b.add(STAGE1, Chroot(root=s.root, why="stage 2 may be seen from its first moment"), Close(fd=s.root))
    why = "a child, which alone is in the PID namespace"
    if s.cgroup != NONE:
        outside = Label("outside")
        born = Clone3Init(flags=0, cgroup=s.birth, on=((ANY, outside),), why=why + ", born in the container's cgroup")
        b.add(
            STAGE1, born, outside, Clone3Init(flags=0, told=OUTSIDE, why="the cgroup takes no birth: to be moved there")
        )
    else:
        b.add(STAGE1, Clone3Init(flags=0, why=why))
    return late


# --- stage 2: the process -------------------------------------------------------------------------------------------


def _plan_late_join(b: Builder, target: Target, s: _Slots, late: int) -> None:
    if s.birth != NONE:
        b.add(STAGE2, Close(fd=s.birth, why="not the program's (CVE-2024-21626)"))
    if late:
        b.add(STAGE2, Setns(ns=s.init, nstype=late, why="with these we could not have entered the cgroup"))
    if target.namespaces & NEWUSER:  # it may have no root: then we are who we are for a while, till process.user
        b.add(
            STAGE2,
            Setresgid(gid=0, on=((EINVAL, None),), why="root of the namespace, where it has one"),
            Setresuid(uid=0, on=((EINVAL, None),), why="and with it all its capabilities"),
            Prctl(option=PR_SET_DUMPABLE, arg2=0, why="a change of ids sets it anew"),
        )


def _plan_process(
    b: Builder,
    spec: Spec,
    process: Process,
    facts: Facts,
    target: Target,
    req: Request,
    s: _Slots,
    seccomp: SeccompProgram | None,
) -> None:
    b.add(STAGE2, Setsid(why="a session of its own"))
    if req.keyring:
        plan_keyring(b)
    if s.console != NONE:
        _plan_console(b, process, s.console, plain=req.plain_output)
    affinity, at = process.exec_cpu_affinity, "/process/execCPUAffinity/final"
    if affinity is not None and affinity.final:
        plan_affinity(b, cpu_mask(affinity.final, at), at)
    elif affinity is None or not affinity.initial:
        plan_affinity(b)
    if spec.linux and (spec.linux.personality or spec.linux.memory_policy):
        from .process.special import plan_special

        plan_special(b, spec.linux)
    plan_identity(
        b,
        process,
        facts,
        proc=None,
        own_userns=bool(target.namespaces & NEWUSER),
        seccomp=seccomp,
        setgroups=None if keeps_groups(spec) else target.setgroups,
    )
    if is_met(spec, req, seccomp):
        b.add(STAGE2, Meet(point=READY, why="all is set but the exec"))
    b.add(STAGE2, Execve(argv=process.args, env=environment(process.env), why="the command"))


def _plan_console(b: Builder, process: Process, socket: int, *, plain: bool) -> None:
    """A terminal of the container's devpts, by no name that leads elsewhere: the slave is opened through its master."""
    size = process.console_size
    devpts, master, slave = b.slot("devpts"), b.slot("terminal"), b.slot("terminal-slave")
    b.add(
        STAGE2,
        Openat2(
            path="/dev/pts",
            flags=O_PATH_DIRECTORY,
            resolve=RESOLVE_NO_SYMLINKS,
            out=devpts,
            why="the container's terminals",
        ),
        CheckFs(fd=devpts, magic=DEVPTS_SUPER_MAGIC, why="a real devpts"),
        Openpt(
            dev=devpts,
            path="ptmx",
            columns=size.width if size else 0,
            rows=size.height if size else 0,
            slave=slave,
            out=master,
        ),
        SendFd(socket=socket, fd=master, data="/dev/ptmx", why="to who asked for the terminal"),
        SetStdio(terminal=slave, why="the command's terminal"),
    )
    if plain:
        b.add(STAGE2, TtyOutput(terminal=slave, clear=ONLCR, why="to a file or pipe: lines end as they are written"))


def _plan_entered(b: Builder, spec: Spec, facts: Facts, target: Target, req: Request, s: _Slots) -> None:
    """The parent learns of stage 2, and moves it to the cgroup in which it could not be born."""
    if s.cgroup == NONE:
        b.add(PARENT, AwaitPid(out=s.pidfd, patience_ms=PATIENCE_MS, why="stage 1 made the process"))
        return
    outside, entered, beside, systemd = Label("outside"), Label("entered"), Label("beside"), Label("systemd")
    done = Goto(on=((ANY, entered),))
    gone: tuple[tuple[int, Label | None], ...] = ((EBADF, None),) if _may_be_gone(spec, facts, req) else ()
    busy = ((EBUSY, beside),) if s.init_cgroup != NONE else ()
    refused: tuple[tuple[int, Label | None], ...] = ()
    if facts.rootless and target.systemd:
        refused = (EACCES, systemd), (EPERM, systemd)
    elif facts.rootless and not has_limits(spec):
        refused = (EACCES, None), (EPERM, None)  # where we are is as good
    refused += gone
    b.add(
        PARENT,
        AwaitPid(out=s.pidfd, patience_ms=PATIENCE_MS, on=((OUTSIDE, outside),), why="stage 1 made the process"),
        done,
        outside,
        _move(s.cgroup, (*busy, *refused), "a move is not counted, so it works where a birth does not"),
    )
    if busy:
        b.add(PARENT, Goto(on=((ANY, (answer := Label("answer"))),)), beside)
        b.add(PARENT, _move(s.init_cgroup, refused, "the cgroup's children have controllers: beside the init"), answer)
    if (EPERM, systemd) in refused:
        b.add(PARENT, Goto(on=((ANY, (moved := Label("moved"))),)), systemd)
        b.add(PARENT, Yield(code=ATTACH, why="the cgroup is not ours to write: systemd moves it"), moved)
    b.add(PARENT, Ack(why="it is where it belongs"), entered)


def _move(cgroup: int, rules: tuple[tuple[int, Label | None], ...], why: str) -> WriteFile:
    return WriteFile(dir=cgroup, path="cgroup.procs", pid=PID_DATA, magic=CGROUP2_SUPER_MAGIC, on=rules, why=why)


def has_limits(spec: Spec) -> bool:
    """Whether the container's own cgroup limits it: a process must not run outside of that then."""
    from .cgroup.resources import CONTROLLERS, MAX, plan_resources

    resources = spec.linux.resources if spec.linux else None
    writes = plan_resources(resources, controllers=frozenset(CONTROLLERS)).writes
    return any(write.value != MAX for write in writes)


def _plan_ready(
    b: Builder, spec: Spec, facts: Facts, target: Target, req: Request, s: _Slots, seccomp: SeccompProgram | None
) -> None:
    if spec.linux and spec.linux.intel_rdt:
        from .cgroup.intelrdt import plan_rdt_join

        plan_rdt_join(b, spec, facts.resctrl_mount, req.id)
    ready = 0 if req.may_be_frozen else PATIENCE_MS
    why = "end of file: the exec took place"
    if not is_met(spec, req, seccomp):
        b.add(PARENT, WaitExec(proc=s.proc, patience_ms=ready, why=why + ", or it was killed"))
        return
    b.add(PARENT, Await(point=READY, patience_ms=ready, why="it is complete"))
    plan_agent(b, spec, req, seccomp, "running", str(target.pid))
    plan_engine(b, req, s.pidfd, s.socket, "setns")
    started = 0 if seccomp is not None and seccomp.listener_path else ready
    b.add(PARENT, Ack(why="it may exec"), WaitExec(proc=s.proc, patience_ms=started, why=why + ", or it was killed"))


def is_met(spec: Spec, req: Request, seccomp: SeccompProgram | None) -> bool:
    """Whether the parent has something to do between the process' last step and its exec. Else it is not waited for
    there, which takes two changes of process."""
    listens = seccomp is not None and seccomp.listener_path
    return bool(listens or req.pid_file or req.pidfd_socket or (spec.linux and spec.linux.intel_rdt))
