"""The container's cgroup: where it is, how it is made, and its limits.

Paths are those of cgroup v2 wherever it is mounted. An absolute cgroupsPath is taken below the mount, a relative one,
and none, beside our own cgroup: a cgroup with processes in it can't have children with controllers, so below it
nothing could be limited (cgroups(7), no internal processes). A cgroup that was there before is used if nothing runs
in it, and never removed by an undo.
"""

from __future__ import annotations

from ...errors import ConfigError, PyrunError
from ...facts import Facts
from ...oci.model import Spec
from ..model.plan import Builder
from ..model.steps import (
    ANY,
    O_DIRECTORY,
    PARENT,
    UNDO,
    BpfProgAttach,
    BpfProgLoad,
    CheckEmpty,
    Goto,
    Label,
    Mkdirat,
    Openat2,
    RemoveCgroup,
    SaveCgroup,
    Step,
    WriteFile,
)
from .devices import device_program, plan_device_rules
from .resources import Write, plan_resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

EEXIST, EACCES, EROFS, EPERM, ENOENT = 17, 13, 30, 1, 2
BPF_F_ALLOW_MULTI = 2
CGROUP2_SUPER_MAGIC = 0x63677270
RECORD_CGROUP = 32  # its offset in the record
COUNTED = (
    "cpu",
    "cpuset",
    "io",
    "memory",
    "pids",
)  # controllers that a container gets where they are to be had: events counts with them


def cgroup_path(spec: Spec, facts: Facts, container: str) -> str:
    """The absolute path of the container's cgroup. PyrunError where no cgroup2 is mounted."""
    if facts.cgroup_mount is None:
        raise PyrunError("no cgroup2 hierarchy is mounted", hint="mount one: mount -t cgroup2 none /sys/fs/cgroup")
    given = spec.linux.cgroups_path if spec.linux else None
    if given and given.startswith("/"):
        below = given
    else:
        below = f"{facts.cgroup_own.rstrip('/').rpartition('/')[0]}/{given or container}"
    return facts.cgroup_mount.rstrip("/") + "/" + below.strip("/")


def plan_cgroup(
    b: Builder, spec: Spec, facts: Facts, path: str, *, record: int, state: int | None = None, inherit: bool = False
) -> int:
    """Parent: makes the cgroup, delegates the controllers that the limits need, sets the limits. Returns the cgroup's
    slot.

    A rootless runtime that may not make cgroups goes without one, unless a limit was asked for. record: slot of
    the record, which knows it before anything is born there. state: of the
    directory without which an undo kills nothing: the cgroup is another container's then. inherit: stage 1
    puts the init there."""
    resources = spec.linux.resources if spec.linux else None
    limits = plan_resources(resources, controllers=facts.controllers)
    assert facts.cgroup_mount is not None
    cgroup, skipped = b.slot("cgroup", inherit=inherit), Label("no cgroup")
    # No cgroup means no limits, and a runtime without root has no device rules: only where config.json has none either.
    optional = ((EACCES, skipped), (EROFS, skipped), (EPERM, skipped)) if facts.rootless and not limits.writes else ()
    plan_path(b, facts, path, limits.controllers, optional, cgroup, state, claim=claim_cgroup(record, path))
    b.add(
        PARENT,
        Openat2(path=path, flags=O_DIRECTORY, out=cgroup, on=optional, at="/linux/cgroupsPath"),
        CheckEmpty(cgroup=cgroup, at="/linux/cgroupsPath", why="what runs there is not ours to limit or kill"),
        save_cgroup(record, cgroup),
    )
    plan_early_limits(b, spec, facts, cgroup)
    b.add(PARENT, skipped)
    return cgroup


def claim_cgroup(record: int, path: str) -> SaveCgroup:
    """Before it is made, by us or by systemd."""
    why = "what a killed create made is removed, but not what was there"
    return SaveCgroup(record=record, path=path, offset=RECORD_CGROUP, at="/linux/cgroupsPath", why=why)


def save_cgroup(record: int, cgroup: int) -> SaveCgroup:
    """Before any process of the container is in it: what is there then may be killed."""
    return SaveCgroup(record=record, cgroup=cgroup, offset=RECORD_CGROUP, why="so that delete knows it from another")


def check_no_limits(spec: Spec, facts: Facts) -> None:
    """For a container that is to get no cgroup of its own. ConfigError when it is to have limits."""
    limits = plan_resources(spec.linux.resources if spec.linux else None, controllers=facts.controllers)
    if limits.writes:
        raise ConfigError(
            [(limits.writes[0].pointer, "a limit needs a cgroup, and --cgroup-manager disabled asks for none")]
        )


def is_writable(spec: Spec) -> bool:
    """Whether the container has a cgroup namespace of its own and its cgroup mounted read-write."""
    kinds = spec.linux.namespaces if spec.linux else ()
    return any(ns.type == "cgroup" and ns.path is None for ns in kinds) and any(
        (m.type in ("cgroup", "cgroup2") or m.source == "cgroup")
        and m.destination.rstrip("/") == "/sys/fs/cgroup"
        and "ro" not in m.options
        for m in spec.mounts
    )


def plan_early_limits(b: Builder, spec: Spec, facts: Facts, cgroup: int) -> None:
    """Parent: the limits for a cgroup that is there, and the device program."""
    limits = plan_resources(spec.linux.resources if spec.linux else None, controllers=facts.controllers)
    plan_writes(b, cgroup, (w for w in limits.writes if not w.late))
    _devices(b, spec, facts, cgroup)
    if is_writable(spec):
        from .cgroup_owner import plan_owner

        plan_owner(b, spec, facts, cgroup)


def plan_late_limits(b: Builder, spec: Spec, facts: Facts, cgroup: int) -> None:
    """Parent: the limits that what sets the container up would count against; once its init is alone in the cgroup."""
    limits = plan_resources(spec.linux.resources if spec.linux else None, controllers=facts.controllers)
    plan_writes(b, cgroup, (w for w in limits.writes if w.late))


def plan_writes(b: Builder, cgroup: int, writes: Iterable[Write]) -> None:
    """Parent: each write, with what is to be written instead where it is tolerated to fail."""
    for write in writes:
        done, other = Label("done"), Label("otherwise")
        rules = tuple((errno, other if write.otherwise else None) for errno in write.tolerate)
        b.add(
            PARENT,
            WriteFile(
                dir=cgroup, path=write.file, data=write.value, magic=CGROUP2_SUPER_MAGIC, on=rules, at=write.pointer
            ),
        )
        if write.otherwise:
            b.add(
                PARENT,
                Goto(on=((ANY, done),)),
                other,
                WriteFile(
                    dir=cgroup,
                    path=write.otherwise[0],
                    data=write.otherwise[1],
                    magic=CGROUP2_SUPER_MAGIC,
                    at=write.pointer,
                ),
                done,
            )


def plan_controllers(
    b: Builder, cgroup: str, needed: tuple[str, ...], wanted: tuple[str, ...], *, rootless: bool = False
) -> None:
    """Parent: lets the children of a cgroup have the controllers; those that no limit needs only if all of them can
    be had. rootless: above what was delegated to us others decide, and may have enabled them already; a controller
    that is missing in the end is seen by the limit that needs it."""
    refused: tuple[tuple[int, Label | None], ...] = ((EACCES, None), (EPERM, None)) if rootless else ()
    only, done = Label("only those needed"), Label("enabled")
    file, why = f"{cgroup}/cgroup.subtree_control", "the limits need these controllers"
    if len(wanted) > len(needed):
        b.add(
            PARENT,
            WriteFile(
                path=file,
                data=" ".join(f"+{c}" for c in wanted),
                magic=CGROUP2_SUPER_MAGIC,
                on=((ANY, only if needed else None),),
                at="/linux/resources",
                why="limits and statistics need controllers",
            ),
        )
        if needed:
            b.add(PARENT, Goto(on=((ANY, done),)))
    if needed:
        b.add(
            PARENT,
            only,
            WriteFile(
                path=file,
                data=" ".join(f"+{c}" for c in needed),
                magic=CGROUP2_SUPER_MAGIC,
                on=refused,
                at="/linux/resources",
                why=why,
            ),
            done,
        )


def plan_path(
    b: Builder,
    facts: Facts,
    path: str,
    controllers: tuple[str, ...],
    optional: tuple[tuple[int, Label | None], ...],
    cgroup: int,
    state: int | None,
    at: str = "/linux/cgroupsPath",
    claim: Step | None = None,
) -> None:
    """Parent: makes the cgroup and those above it that are missing, each with the controllers for the next; undo
    removes what was made. cgroup: the slot in which it will be held. claim: a step right before the last is made."""
    assert facts.cgroup_mount is not None
    mount, available = facts.cgroup_mount.rstrip("/"), facts.controllers
    made: list[Step] = []
    wanted = (*controllers, *(c for c in COUNTED if c in available and c not in controllers))
    here = mount
    names = path[len(mount) :].strip("/").split("/")
    for number, name in enumerate(names, 1):
        plan_controllers(b, here, controllers, wanted, rootless=facts.rootless)
        here += f"/{name}"
        step = Mkdirat(path=here, mode=0o755, on=((EEXIST, None), *optional), at=at)
        made.append(step)
        if claim is not None and number == len(names):
            b.add(PARENT, claim)
        b.add(PARENT, step)
    *above, last = made
    b.add(
        UNDO,
        RemoveCgroup(path=last.args["path"], cgroup=cgroup, kill=1, guard=last, still=state),
        *(RemoveCgroup(path=s.args["path"], guard=s, still=state) for s in above[::-1]),
    )


def _devices(b: Builder, spec: Spec, facts: Facts, cgroup: int) -> None:
    """The device program. A user namespace may not attach one, and needs none: no node made in it can be opened
    (mknod(2))."""
    rules = plan_device_rules(spec)
    if facts.rootless or facts.in_userns:
        return
    prog = b.slot("device-program")
    b.add(
        PARENT,
        BpfProgLoad(
            insns=device_program(rules),
            out=prog,
            at="/linux/resources/devices",
            why="cgroup v2 has device rules as BPF",
        ),
        BpfProgAttach(cgroup=cgroup, prog=prog, flags=BPF_F_ALLOW_MULTI, at="/linux/resources/devices"),
    )
