"""The plan of `create` and `run`, one screen a lane.

Parent: state, cgroup, what must be opened while paths are the host's, then stage 1 and the rendezvous. Stage 2: file
system, hooks, pivot, identity, and then it parks, or execs at once. What fails anywhere is undone by the last lane,
in reverse.
"""

from __future__ import annotations

from ..facts import Facts
from ..oci.model import Spec
from .cgroup.birth import plan_birth_mount
from .cgroup.cgroups import plan_cgroup, plan_late_limits
from .model.plan import Builder, Plan
from .model.request import Request
from .model.steps import (
    NEXT,
    O_PATH_DIRECTORY,
    PARENT,
    STAGE1,
    STAGE2,
    UNDO,
    Ack,
    Await,
    AwaitPid,
    CheckFs,
    Clone3,
    Connect,
    CreateFile,
    Dup,
    Execve,
    Meet,
    Mkdirat,
    Mkfifoat,
    Netlink,
    Openat2,
    Park,
    Prctl,
    SavePid,
    Setdomainname,
    Sethostname,
    Setsid,
    Step,
    TtyOutput,
    Unlinkat,
    WaitExec,
)
from .namespace.namespaces import (
    HOOKS,
    PATIENCE_MS,
    PROC_SUPER_MAGIC,
    READY,
    is_born_early,
    namespaces,
    open_namespaces,
    plan_entered,
    plan_id_maps,
    plan_stage1,
)
from .namespace.netlink import link_up
from .process.hooks import hooks_of, open_bundle, plan_hooks, state_json
from .process.process import (
    environment,
    ignored_caps,
    keeps_groups,
    plan_affinity,
    plan_identity,
    plan_key_label,
    plan_keyring,
)
from .process.seccomp import SeccompProgram, plan_seccomp
from .process.told import plan_agent, plan_engine
from .rootfs.mounts import plan_handed_mounts
from .rootfs.rootfs import (
    RootfsPlan,
    plan_console,
    plan_rootfs_child,
    plan_rootfs_finish,
    plan_rootfs_parent,
    plan_rootfs_pivot,
    plan_rootfs_stage1,
)
from .rootfs.rootfs_plan import is_bare

AT_REMOVEDIR = 0x200
ENOENT = 2
PR_SET_CHILD_SUBREAPER = 36
ONLCR = 4
RECORD_PID = 8  # offset of pid, start time, status and cgroup in the record
CREATING, CREATED = 0, 1
STATE_FILES = ("record", "config.json", "go", "status")


class _Slots:
    """Slots that several parts of the plan share."""

    __slots__ = (
        "birth",
        "bundle",
        "cgroup",
        "console",
        "go",
        "made",
        "pidfd",
        "pidfd_socket",
        "proc",
        "record",
        "recorded",
        "state",
        "status",
    )
    birth: int  # the cgroup, as stage 2 may see it
    bundle: int | None
    cgroup: int
    console: int
    go: int
    made: Step  # the one that takes the id
    pidfd: int
    pidfd_socket: int
    proc: int
    record: int
    recorded: Step  # the one by which the directory is ours for sure
    state: int
    status: int


def plan_create(spec: Spec, facts: Facts, req: Request) -> Plan:
    """The plan of create (req.park) or run. ConfigError where the host lacks what config.json wants, before anything
    is made."""
    b = Builder(3 + req.preserve_fds)
    s = _Slots()
    seccomp = plan_seccomp(
        spec.linux.seccomp if spec.linux else None,
        arch=facts.arch,
        nnp=bool(spec.process and spec.process.no_new_privileges),
    )
    _plan_state(b, s, req)
    # With systemd the cgroup comes later, around a process that is there.
    if req.cgroup and not req.systemd:
        bare = is_bare(spec, facts)
        own = not bare and not is_born_early(spec)
        s.cgroup = plan_cgroup(b, spec, facts, req.cgroup, record=s.record, state=s.state, inherit=own)
        s.birth = plan_birth_mount(b, s.cgroup) if bare else s.cgroup
    else:
        s.cgroup = s.birth = b.slot("cgroup")
    linux = spec.linux
    if linux and linux.intel_rdt:  # what few configs have is imported for them alone
        from .cgroup.intelrdt import plan_rdt_group

        plan_rdt_group(b, spec, facts, req.id)
    joins, root = _plan_opened(b, s, spec, facts, req)
    _plan_stages(b, s, spec, facts, req, joins, root)
    if linux and linux.intel_rdt:
        from .cgroup.intelrdt import plan_rdt_join

        plan_rdt_join(b, spec, facts.resctrl_mount, req.id)
    if linux and linux.net_devices:
        from .namespace.netdevices import plan_devices_of_host

        plan_devices_of_host(b, spec, facts, s.proc)
    plan_handed_mounts(b, spec, root)
    _plan_hooks_point(b, spec, req, s)
    _plan_init(b, spec, facts, req, s, root, seccomp)
    _plan_ready(b, spec, facts, req, s, seccomp)
    _plan_undo_state(b, s, req)
    return b.plan()


def warnings(spec: Spec, facts: Facts) -> list[str]:
    """What of config.json is left out, where that is no error."""
    kinds, found = namespaces(spec), []
    ignored = ignored_caps(spec.process, facts, "user" in kinds) if spec.process is not None else ()
    if ignored:
        found.append(f"ignoring unknown or unavailable capabilities: {' '.join(ignored)}")
    if spec.mounts and "mount" not in kinds:  # those of the kernel's file systems alone pass: rootfs.py
        found.append("ignoring the mounts, which without a mount namespace would be the host's")
    return found


def _plan_opened(b: Builder, s: _Slots, spec: Spec, facts: Facts, req: Request) -> tuple[dict[str, int], RootfsPlan]:
    """What the parent opens while paths are the host's: /proc, namespaces to join, mounts, sockets, the bundle."""
    s.proc = b.slot("proc", inherit=True)
    b.add(
        PARENT,
        Openat2(path="/proc", flags=O_PATH_DIRECTORY, out=s.proc, why="the host's, for id maps and the like"),
        CheckFs(fd=s.proc, magic=PROC_SUPER_MAGIC, why="a real one (CVE-2019-16884)"),
    )
    joins = open_namespaces(b, spec, s.proc)
    root = plan_rootfs_parent(
        b, spec, facts, rootfs=req.rootfs, bundle=req.bundle, cgroup=req.cgroup, overlay=req.overlay
    )
    s.console = _plan_console_socket(b, spec, req)
    s.pidfd, s.pidfd_socket = b.slot("pidfd"), b.slot("pidfd-socket")
    if req.pidfd_socket:
        b.add(PARENT, Connect(path=req.pidfd_socket, out=s.pidfd_socket, why="a pidfd of the init goes there"))
    if req.subreaper:
        why = "what the container leaves behind is ours to reap"
        b.add(PARENT, Prctl(option=PR_SET_CHILD_SUBREAPER, arg2=1, why=why))
    if req.stdio is not None:
        from .process.stdio import plan_stdio

        plan_stdio(b, req)
    s.bundle = open_bundle(b, spec, req, "prestart", "createRuntime", *(() if req.park else ("poststart",)))
    return joins, root


def _plan_stages(
    b: Builder, s: _Slots, spec: Spec, facts: Facts, req: Request, joins: dict[str, int], root: RootfsPlan
) -> None:
    """Stage 1 and how the init gets into its cgroup, up to the moment when the parent knows the init's pid."""
    early, scope = is_born_early(spec), req.cgroup if req.systemd else None
    image = Clone3(image=facts.init_path, load=facts.memfd, flags=0, at="/linux/cgroupsPath", why="stage 1")
    if early and req.cgroup:
        image.args["cgroup"] = s.cgroup
        image.why = "stage 1, born in the container's cgroup"
    b.add(PARENT, image)
    if scope and early:
        _plan_scope(b, s, spec, facts, scope, STAGE1)
    cgroup = s.birth if req.cgroup and not (early or scope) else None
    if req.overlay is not None and early:
        from .rootfs.overlay import is_made_late, plan_overlay_stage1

        if is_made_late(root):
            plan_overlay_stage1(b, root)
    own_mounts = (lambda: plan_rootfs_stage1(b, spec, root)) if root.bare else None
    plan_stage1(b, spec, facts, joins, s.proc, cgroup, own_mounts)
    plan_id_maps(b, spec, facts, s.proc)
    found = SavePid(record=s.record, proc=s.proc, cgroup=s.cgroup, offset=RECORD_PID, status=CREATING)
    found.why = "so that delete finds it, whatever happens to us"
    b.add(PARENT, AwaitPid(out=s.pidfd, patience_ms=PATIENCE_MS, why="stage 1 made the init"), found)
    if scope and not early:
        _plan_scope(b, s, spec, facts, scope, STAGE2)
    plan_entered(b, spec, joins, cgroup)


def _plan_scope(b: Builder, s: _Slots, spec: Spec, facts: Facts, path: str, lane: int) -> None:
    from .cgroup.scopes import plan_scope

    plan_scope(b, spec, facts, path, s.cgroup, s.record, lane)


def _plan_state(b: Builder, s: _Slots, req: Request) -> None:
    s.made = Mkdirat(path=req.state_dir, mode=0o700, why="takes the id: of two creates one wins")
    s.state, s.record, s.go, s.status = (
        b.slot("state"),
        b.slot("record"),
        b.slot("go", inherit=req.park),
        b.slot("status", inherit=req.park),
    )
    s.recorded = CreateFile(
        dir=s.state,
        name="record",
        mode=0o600,
        data=req.record,
        lock=1,
        out=s.record,
        why="what the other commands know of the container",
    )
    b.add(
        PARENT,
        s.made,
        Openat2(path=req.state_dir, flags=O_PATH_DIRECTORY, out=s.state),
        s.recorded,
        CreateFile(
            dir=s.state, name="config.json", mode=0o600, data=req.config, why="exec and update go by what was created"
        ),
    )
    if req.park:
        b.add(
            PARENT,
            Mkfifoat(dir=s.state, name="go", mode=0o600, out=s.go, why="start writes here"),
            Mkfifoat(dir=s.state, name="status", mode=0o600, out=s.status, why="and reads here what the exec said"),
        )
    if req.notify:
        from .rootfs.notify import plan_notify_directory

        plan_notify_directory(b, req, s.state, s.recorded)


def _plan_undo_state(b: Builder, s: _Slots, req: Request) -> None:
    """Last of all that is undone: until then `delete --force` finds what is left. Whoever deleted the container while
    it was being made may have made another of this name, so what is not ours any more stays."""
    gone = ((ENOENT, None),)
    names = STATE_FILES if req.park else STATE_FILES[:2]
    b.add(
        UNDO,
        *(Unlinkat(dir=s.state, path=name, on=gone, guard=s.recorded) for name in names),
        Unlinkat(path=req.state_dir, flags=AT_REMOVEDIR, guard=s.made, still=s.state),
    )


def _plan_console_socket(b: Builder, spec: Spec, req: Request) -> int:
    if not (spec.process and spec.process.terminal):
        return 0xFFFF
    console = b.slot("console-socket", inherit=True)
    if req.console is not None:
        b.add(
            PARENT,
            Dup(fd=req.console, out=console, at="/process/terminal", why="the terminal's master comes back to us"),
        )
    else:
        b.add(
            PARENT,
            Connect(
                path=req.console_socket or "",
                out=console,
                at="/process/terminal",
                why="the terminal's master goes there",
            ),
        )
    return console


def _plan_hooks_point(b: Builder, spec: Spec, req: Request, s: _Slots) -> None:
    """The parent's side of HOOKS: the mounts are made, the root is not yet pivoted."""
    state = state_json(spec, req.id, req.bundle, "creating")
    b.add(PARENT, Await(point=HOOKS, patience_ms=PATIENCE_MS, why="namespaces and mounts are made"))
    plan_hooks(b, PARENT, spec, "prestart", state, s.bundle, req.environ)
    plan_hooks(b, PARENT, spec, "createRuntime", state, s.bundle, req.environ)
    b.add(PARENT, Ack())


def _plan_init(
    b: Builder, spec: Spec, facts: Facts, req: Request, s: _Slots, root: RootfsPlan, seccomp: SeccompProgram | None
) -> None:
    kinds = namespaces(spec)
    b.add(STAGE2, Setsid(why="a session, and a terminal, of its own"))
    if req.keyring:
        plan_key_label(b, STAGE2, spec.process, root.proc)
        plan_keyring(b)
    if kinds.get("network", (0, ""))[1] is None:
        msg, _ = link_up("lo")
        b.add(STAGE2, Netlink(msg=msg, patch=NEXT, at=f"/linux/namespaces/{kinds['network'][0]}", why="loopback up"))
    if spec.hostname is not None:
        b.add(STAGE2, Sethostname(name=spec.hostname, at="/hostname"))
    if spec.domainname is not None:
        b.add(STAGE2, Setdomainname(name=spec.domainname, at="/domainname"))
    plan_rootfs_child(b, spec, facts, root)
    if s.console != 0xFFFF:
        _, slave = plan_console(b, root, spec, socket=s.console)
        if req.plain_output:
            b.add(
                STAGE2,
                TtyOutput(
                    terminal=slave,
                    clear=ONLCR,
                    at="/process/terminal",
                    why="it goes to a file or pipe: lines end as they are written",
                ),
            )
    b.add(STAGE2, Meet(point=HOOKS, why="prestart and createRuntime hooks run now"))
    plan_hooks(b, STAGE2, spec, "createContainer", state_json(spec, req.id, req.bundle, "creating"), root.root)
    plan_rootfs_pivot(b, spec, facts, root)
    plan_rootfs_finish(b, spec, facts, root)
    plan_affinity(b)
    if spec.linux and (spec.linux.personality or spec.linux.memory_policy):
        from .process.special import plan_special

        plan_special(b, spec.linux)
    if spec.process is not None:
        plan_identity(
            b,
            spec.process,
            facts,
            proc=root.proc,
            own_userns="user" in kinds,
            seccomp=seccomp,
            setgroups=None if keeps_groups(spec) else _setgroups(spec, facts),
            kept=(s.go, s.status) if req.park else (None, None),
            late=req.park and req.late,
        )
    b.add(STAGE2, Meet(point=READY, why="all is set but the exec"))
    if req.park:
        b.add(STAGE2, Park(go=s.go, status=s.status, why="until start"))
    plan_hooks(b, STAGE2, spec, "startContainer", state_json(spec, req.id, req.bundle, "created"))
    if spec.process is not None:
        b.add(STAGE2, Execve(argv=spec.process.args, env=environment(spec.process.env), at="/process/args"))


def _setgroups(spec: Spec, facts: Facts) -> bool:
    """Whether the container's user namespace allows setgroups(2): not when its gid map is written without privilege, or
    one above it is such (user_namespaces(7))."""
    from .namespace.namespaces import new_userns

    if not facts.setgroups:
        return False
    if not new_userns(spec) or facts.has_cap(6):
        return True
    maps = spec.linux.gid_mappings if spec.linux else ()
    return not (len(maps) == 1 and maps[0].size == 1 and maps[0].host_id == facts.egid)


def _plan_ready(b: Builder, spec: Spec, facts: Facts, req: Request, s: _Slots, seccomp: SeccompProgram | None) -> None:
    patience = 0 if hooks_of(spec, "createContainer") else PATIENCE_MS
    b.add(PARENT, Await(point=READY, patience_ms=patience, why="the init is complete"))
    plan_agent(b, spec, req, seccomp, "creating")
    if req.cgroup:
        plan_late_limits(b, spec, facts, s.cgroup)
    plan_engine(b, req, s.pidfd, s.pidfd_socket, "standard")
    b.add(
        PARENT,
        SavePid(
            record=s.record,
            proc=s.proc,
            cgroup=s.cgroup,
            offset=RECORD_PID,
            status=CREATED,
            why="from here on it exists",
        ),
        Ack(why="it may wait for start, or exec"),
    )
    if not req.park:
        theirs = hooks_of(spec, "startContainer") or (seccomp is not None and seccomp.listener_path)
        why = "end of file: the exec took place, or it was killed"
        b.add(PARENT, WaitExec(proc=s.proc, patience_ms=0 if theirs else PATIENCE_MS, why=why))
        plan_hooks(b, PARENT, spec, "poststart", state_json(spec, req.id, req.bundle, "running"), s.bundle, req.environ)
