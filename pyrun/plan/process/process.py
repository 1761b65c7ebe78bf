"""Stage 2's last part, and all of an exec's: from a process of root's with all privileges to the user's program.

The order is the safety. What needs privilege comes first; the bounding set is dropped while CAP_SETPCAP is there;
after setresuid the kernel has cleared the effective set, so capset and ambient come behind it; seccomp is last, so
that a profile need allow no more than capset, read, write and execve; the working directory is entered as root where
that works and else as the user (directories that only one of the two may enter both work); the file to run is looked
up as the user who will run it.
"""

from __future__ import annotations

from ...errors import ConfigError
from ...facts import CAP_SETGID, CAP_SYS_ADMIN, Facts
from ...oci import names
from ...oci.model import Process, Spec
from ..model.plan import Builder
from ..model.step import ANY
from ..model.steps import (
    STAGE2,
    Ambient,
    Capbset,
    Capset,
    Chdir,
    CloseFds,
    FchownStdio,
    FindExecutable,
    IoprioSet,
    KeyctlSession,
    Prctl,
    SchedSetaffinity,
    SchedSetattr,
    Seccomp,
    Setgroups,
    SetHome,
    Setresgid,
    Setresuid,
    Setrlimit,
    Umask,
    WriteFile,
)
from .seccomp import SeccompProgram

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PR_SET_KEEPCAPS, PR_SET_NO_NEW_PRIVS = 8, 38
EACCES, EPERM, ENOSYS = 13, 1, 38
PROC_SUPER_MAGIC = 0x9FA0
RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS = 0x01, 0x02
ALL_CPUS = b"\xff" * 1024  # as many as a kernel can be built for; it takes those that there are


def cap_mask(wanted: tuple[str, ...], available: int) -> int:
    """The mask of the capabilities named, less those we have not got ourselves: runtimes ignore these, with a
    warning."""
    mask = 0
    for name in wanted:
        mask |= 1 << names.CAPABILITIES[name]
    return mask & available


def ignored_caps(process: Process, facts: Facts, own_userns: bool) -> tuple[str, ...]:
    """The capabilities that are asked for and can't be had: unknown ones, those that the runtime has not got, and
    ambient ones that are not permitted and inheritable as well (capabilities(7)). They MUST be warned about (config.md,
    Linux Process)."""
    caps = process.capabilities
    if caps is None:
        return ()
    known = (1 << facts.last_cap + 1) - 1
    available = known if own_userns else facts.caps & known
    named = (*caps.bounding, *caps.effective, *caps.inheritable, *caps.permitted, *caps.ambient)
    missing = dict.fromkeys(name for name in named if not available >> names.CAPABILITIES[name] & 1)
    low = [name for name in caps.ambient if name not in caps.permitted or name not in caps.inheritable]
    return tuple(dict.fromkeys((*caps.ignored, *missing, *low)))


def environment(env: tuple[str, ...]) -> tuple[str, ...]:
    """The environment with each name once, as runc has it: of many the last counts, and an empty HOME is none."""
    last: dict[str, str] = {}
    for variable in env:
        name = variable.partition("=")[0]
        last.pop(name, None)
        if variable != "HOME=":
            last[name] = variable
    return tuple(last.values())


def keeps_groups(spec: Spec) -> bool:
    """Whether the caller's supplementary groups stay, which no container could be given otherwise without privilege:
    crun's annotation, by which podman asks for it (--group-add keep-groups)."""
    return spec.annotations.get("run.oci.keep_original_groups") == "1"


def plan_identity(
    b: Builder,
    process: Process,
    facts: Facts,
    *,
    proc: int | None,
    own_userns: bool,
    seccomp: SeccompProgram | None,
    setgroups: bool | None,
    kept: tuple[int | None, int | None] = (None, None),
    late: bool = False,
    at: str = "/process",
) -> None:
    """Everything between the finished file system and the exec. proc: a procfs that shows us; None where stage 1 has
    written the labels. seccomp: SeccompProgram or None.

    own_userns: in a user namespace other than the runtime's, where all capabilities can be had. setgroups: the
    namespace allows the call; None: the caller's groups stay. kept: slots for Park. late: what
    the user has wrong, the program or its directory, fails Execve and nothing before."""
    env = _before_privileges(b, process, proc, at, late)
    # Without noNewPrivileges seccomp(2) needs CAP_SYS_ADMIN: it is held until then, and only a capset comes after.
    held = 1 << CAP_SYS_ADMIN if seccomp is not None and not process.no_new_privileges else 0
    caps = _user(b, process, facts, own_userns, setgroups, held, at)
    late_word: dict[str, Any] = {"late": 1} if late else {}
    b.add(STAGE2, Chdir(path=process.cwd, again=1, at=f"{at}/cwd", why="as the user, if root could not", **late_word))
    path = next((e[5:] for e in env if e.startswith("PATH=")), "")
    why = "a failure is told at start" if late else "so that create fails and not start"
    b.add(
        STAGE2,
        FindExecutable(name=process.args[0], path=path, at=f"{at}/args/0", why=why, **late_word),
        CloseFds(go=kept[0], status=kept[1], why="nothing but the user's own descriptors (CVE-2024-21626)"),
    )
    if seccomp is not None:
        _seccomp(b, seccomp, caps, held, at)


def plan_affinity(b: Builder, mask: bytes | None = None, at: str | None = None) -> None:
    """Stage 2, in its cgroup: the CPUs of mask; without one all that the cgroup leaves it, for since Linux 6.2 the
    caller's would stay (runc and crun do the same)."""
    if mask is not None:
        b.add(STAGE2, SchedSetaffinity(mask=mask, at=at))
        return
    why = "all CPUs of the cgroup, not the caller's"
    b.add(STAGE2, SchedSetaffinity(mask=ALL_CPUS, on=((EPERM, None), (ENOSYS, None)), why=why))


def _before_privileges(b: Builder, process: Process, proc: int | None, at: str, late: bool) -> tuple[str, ...]:
    """What root does for the user: labels, HOME, scheduling, limits, streams, umask, and the way into the working
    directory. Returns the environment."""
    if proc is not None:
        plan_labels(b, STAGE2, process, proc, at)
    env = environment(process.env)
    if not any(e.startswith("HOME=") for e in env):
        why = "HOME is not set; /etc/passwd of the container says it"
        b.add(STAGE2, SetHome(uid=process.user.uid, at=f"{at}/env", why=why))
    _scheduling(b, process, at)
    for i, limit in enumerate(process.rlimits):
        number = names.RLIMITS[limit.type]
        b.add(STAGE2, Setrlimit(resource=number, soft=limit.soft, hard=limit.hard, at=f"{at}/rlimits/{i}"))
    b.add(STAGE2, FchownStdio(uid=process.user.uid, at=f"{at}/user/uid", why="the program may reopen its streams"))
    b.add(STAGE2, Umask(mask=0o022 if process.user.umask is None else process.user.umask, at=f"{at}/user/umask"))
    if process.no_new_privileges:
        b.add(STAGE2, Prctl(option=PR_SET_NO_NEW_PRIVS, arg2=1, at=f"{at}/noNewPrivileges"))
    # No protection: the second try looks as well, and has no rule.
    refused = (ANY,) if late else (EACCES, EPERM)
    b.add(
        STAGE2,
        Chdir(
            path=process.cwd, on=tuple((n, None) for n in refused), at=f"{at}/cwd", why="as root; the user tries again"
        ),
    )
    return env


def _seccomp(b: Builder, program: SeccompProgram, caps: tuple[int, int, int], held: int, at: str) -> None:
    """The filter, last. caps: effective, permitted, inheritable as the program will have them; held: what more the
    permitted set has till now."""
    effective, permitted, inheritable = caps
    if held:
        why = "seccomp(2) without noNewPrivileges wants CAP_SYS_ADMIN"
        b.add(STAGE2, Capset(effective=effective | held, permitted=permitted | held, inheritable=inheritable, why=why))
    why = "last, so that the profile need not allow what came before"
    b.add(STAGE2, Seccomp(prog=program.bpf, flags=program.flags, at="/linux/seccomp", why=why))
    if held & ~permitted:
        final = Capset(effective=effective, permitted=permitted, inheritable=inheritable, at=f"{at}/capabilities")
        final.why = "CAP_SYS_ADMIN goes again"
        b.add(STAGE2, final)


def plan_labels(b: Builder, lane: int, process: Process, proc: int, at: str = "/process") -> None:
    """What an LSM makes of the process at its exec. A child inherits it. proc: a procfs that shows us."""
    if process.apparmor_profile:
        b.add(
            lane,
            WriteFile(
                dir=proc,
                path="self/attr/apparmor/exec",
                data=f"exec {process.apparmor_profile}",
                magic=PROC_SUPER_MAGIC,
                resolve=RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS,
                at=f"{at}/apparmorProfile",
                why="takes effect at the exec",
            ),
        )
    if process.selinux_label:
        b.add(lane, _selinux_label(process.selinux_label, proc, "exec", at, "takes effect at the exec"))


def _selinux_label(label: str, proc: int, name: str, at: str, why: str) -> WriteFile:
    return WriteFile(
        dir=proc,
        path=f"self/attr/{name}",
        data=label,
        magic=PROC_SUPER_MAGIC,
        resolve=RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS,
        at=f"{at}/selinuxLabel",
        why=why,
    )


def plan_key_label(b: Builder, lane: int, process: Process | None, proc: int) -> None:
    """Whose the keys are that we make, till the exec. A child inherits it. proc: a procfs that shows us."""
    if process is not None and process.selinux_label:
        why = "the keys are the container's, till the exec"
        b.add(lane, _selinux_label(process.selinux_label, proc, "keycreate", "/process", why))


def plan_keyring(b: Builder) -> None:
    """A session keyring of its own, with no key of the caller's in it.

    It has no name, as keyctl(2) joins an existing one by name, and any user may have made that. It is made by the
    container's root, after the user namespace: host root's would let the container fill host root's key quota with
    links. So whoever fills that user's quota makes create and exec fail, never share (keyrings(7))."""
    # ENOSYS alone may be skipped, as runc and crun do: no keys in this kernel, or a filter around us (LXC has one) that
    # is the container's too, so it can read none. An EPERM or EACCES may be meant for us alone.
    b.add(STAGE2, KeyctlSession(on=((ENOSYS, None),), why="the container's keys, not the host's"))


def _scheduling(b: Builder, process: Process, at: str) -> None:
    sched = process.scheduler
    if sched is not None:
        flags = 0
        for flag in sched.flags:
            flags |= names.SCHEDULER_FLAGS[flag]
        attr = b"".join(
            v.to_bytes(n, "little", signed=v < 0)
            for v, n in (
                (48, 4),
                (names.SCHEDULER_POLICIES[sched.policy], 4),
                (flags, 8),
                (sched.nice or 0, 4),
                (sched.priority or 0, 4),
                (sched.runtime or 0, 8),
                (sched.deadline or 0, 8),
                (sched.period or 0, 8),
            )
        )
        b.add(STAGE2, SchedSetattr(attr=attr, at=f"{at}/scheduler"))
    prio = process.io_priority
    if prio is not None:
        b.add(
            STAGE2,
            IoprioSet(
                ioprio=names.IO_PRIORITY_CLASSES[prio.class_] << 13 | (prio.priority or 0), at=f"{at}/ioPriority"
            ),
        )


def cpu_mask(text: str, pointer: str) -> bytes:
    """ "0-3,7" as the bytes of a cpu_set_t (cpuset(7), list format)."""
    return number_mask(text, 8192, "CPU", pointer)


def number_mask(text: str, most: int, what: str, pointer: str) -> bytes:
    """Such a list of numbers below most, in whole longs."""
    mask = 0
    for part in text.split(","):
        low, _, high = part.strip().partition("-")
        try:
            first, last = int(low), int(high or low)
        except ValueError:
            raise ConfigError([(pointer, f"not a list of {what}s: {text!r}")], hint="write it as 0-3,7") from None
        if not 0 <= first <= last < most:
            raise ConfigError([(pointer, f"{what} numbers out of range: {part!r}")])
        mask |= (1 << last + 1) - (1 << first)
    return mask.to_bytes((mask.bit_length() + 63) // 64 * 8, "little")


def _user(
    b: Builder, process: Process, facts: Facts, own_userns: bool, setgroups: bool | None, held: int, at: str
) -> tuple[int, int, int]:
    """Ids and capabilities; returns effective, permitted and inheritable as the program will have them. held stays
    permitted, not effective."""
    caps = process.capabilities
    known = (1 << facts.last_cap + 1) - 1
    available = known if own_userns else facts.caps & known
    sets = (caps.bounding, caps.effective, caps.permitted, caps.inheritable, caps.ambient) if caps else ((),) * 5
    bounding, effective, permitted, inheritable, ambient = (cap_mask(s, available) for s in sets)
    pointer = f"{at}/capabilities"
    b.add(
        STAGE2,
        Capbset(keep=bounding, at=f"{pointer}/bounding"),
        Prctl(option=PR_SET_KEEPCAPS, arg2=1, why="capset below says what stays"),
    )
    user = process.user
    if setgroups and (own_userns or facts.has_cap(CAP_SETGID)):
        b.add(
            STAGE2,
            Setgroups(
                groups=user.additional_gids, at=f"{at}/user/additionalGids", why="also to drop the runtime's own groups"
            ),
        )
    elif user.additional_gids and setgroups is not None:
        raise ConfigError(
            [(f"{at}/user/additionalGids", "setgroups(2) is not allowed in this user namespace")],
            hint="a gid map written without privilege forbids supplementary groups; use newgidmap or drop them",
        )
    b.add(
        STAGE2,
        Setresgid(gid=user.gid, at=f"{at}/user/gid"),
        Setresuid(uid=user.uid, at=f"{at}/user/uid"),
        Prctl(option=PR_SET_KEEPCAPS, arg2=0),
        Capset(effective=effective, permitted=permitted | held, inheritable=inheritable, at=pointer),
        Ambient(raise_=ambient & permitted & inheritable, at=f"{pointer}/ambient"),
    )
    return effective, permitted, inheritable
