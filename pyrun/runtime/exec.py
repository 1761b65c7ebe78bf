"""exec: another process in a container.

The container's record says where its init is, the copy of its config.json what it was made with. What its namespaces,
its cgroup and its root are now is read from the host's /proc, for the container may have changed all three.
"""

from __future__ import annotations

import posix

from ..errors import FailedPrecondition, PyrunError
from ..executor import Outcome, StepFailed, run_plan
from ..facts import Facts, collect_facts, read_text
from ..oci import names
from ..oci.model import Process, Spec
from ..plan.exec import Target, plan_exec
from ..plan.model.request import Request
from ..plan.model.steps import Chdir
from . import record as rec
from .descriptors import check_stdio, kept_descriptors
from .live_cgroup import live_cgroup
from .store import PAUSED, STOPPED, Container, start_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .systemd import Attach

    Namespaces = dict[str, tuple[int, int]]  # device and inode of each, by its kind

CANNOT_RUN = 255
ESRCH, EPIPE, ECONNRESET = 3, 32, 104
END_MS = 500
CREATING = "creating"


class Planned:
    """An exec that is planned but not begun: by what, and the plan."""

    __slots__ = ("facts", "plan", "request", "spec", "target")

    def __init__(self, spec: Spec, process: Process, facts: Facts, target: Target, request: Request) -> None:
        self.spec = spec
        self.facts = facts
        self.target = target
        self.request = request
        self.plan = plan_exec(spec, process, facts, target, request)


def prepare_exec(
    c: Container,
    spec: Spec,
    process: Process,
    *,
    facts: Facts | None = None,
    rootless: bool | None = None,
    ignore_paused: bool = False,
    preserve_fds: int = 0,
    ours: Namespaces | None = None,
    **words: object,
) -> Planned:
    """Plans an exec of process in a container made from spec. PyrunError; nothing has been made then.

    facts, rootless: as for prepare(). ours: own_namespaces(), of a caller who stays in them. words: more attributes
    of Request."""
    _check_status(c, ignore_paused)
    kept = kept_descriptors(preserve_fds)
    facts = facts.copy() if facts is not None else collect_facts(rootless, making=False)
    if spec.linux is not None and spec.linux.intel_rdt is not None:
        from ..facts_rare import resctrl_mount

        facts.resctrl_mount = resctrl_mount()
    request = Request(
        id=c.id,
        bundle=c.record.text("bundle"),
        preserve_fds=kept,
        keyring=not c.record.flags & rec.NO_KEYRING,
        may_be_frozen=ignore_paused,
        **words,
    )
    check_stdio(request.stdio, process)
    return Planned(spec, process, facts, collect_target(c, facts, ours), request)


def run_exec(planned: Planned, cancel: int = -1, run: Callable[..., Outcome] = run_plan) -> Outcome:
    """The process, which has begun its program. The outcome holds its pidfd; the caller closes it. PyrunError, with
    code 255 when the program can't be run. run: see run_prepared()."""
    plan, attach = planned.plan, _attach(planned)
    try:
        return run(plan, on_yield=attach.on_yield if attach else None, cancel=cancel)
    except StepFailed as e:
        if e.errno in (ESRCH, ECONNRESET, EPIPE) and _has_ended(planned.target):
            raise PyrunError("container not running", hint="it ended while the command was being started") from None
        from ..plan.words.step_errors import explain_failure

        error = explain_failure(e, run_code=CANNOT_RUN, child="the command's process")
        if isinstance(plan.steps[e.step], Chdir):
            error.code = CANNOT_RUN
        if error.pointer is not None and error.pointer.startswith("/process"):
            error.pointer = None  # the process is the command line's, or a file's
        raise error from None


def _has_ended(target: Target) -> bool:
    """Whether the init is gone. Who is killed along with it may be gone some milliseconds before it."""
    import select

    try:
        pidfd = posix.pidfd_open(target.pid)
    except OSError:  # it is gone, or its number is a thread's by now, or there is no descriptor to wait with
        return start_time(target.pid) != target.start
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll(END_MS)
    posix.close(pidfd)
    return start_time(target.pid) != target.start


def _attach(planned: Planned) -> Attach | None:
    """What answers the plan's Yield, where systemd moves the process into the container's unit."""
    if not (planned.target.systemd and planned.facts.rootless):
        return None
    from .systemd import Attach

    return Attach(planned.spec, planned.target, planned.request)


def _check_status(c: Container, ignore_paused: bool) -> None:
    status = c.status()
    if status == STOPPED:
        raise FailedPrecondition(
            "cannot exec in a stopped container: container not running",
            hint="start another one: `pyrun run`, or `create` and `start`",
        )
    if status == PAUSED and not ignore_paused:
        raise PyrunError(
            "cannot exec in a paused container",
            hint=f"pyrun resume {c.id}, or --ignore-paused: the command then waits for that",
        )
    if status == CREATING:
        raise PyrunError(
            "cannot exec in a container that is still being created", hint=f"once it is: pyrun state {c.id}"
        )


# --- what there is --------------------------------------------------------------------------------------------------


def collect_target(c: Container, facts: Facts, ours: Namespaces | None = None) -> Target:
    """The container as it is now. ours: see prepare_exec(). PyrunError when its init is gone."""
    pid = c.record.pid
    namespaces = _foreign_namespaces(pid, own_namespaces() if ours is None else ours)
    lines = read_text(f"/proc/{pid}/cgroup").splitlines()
    line = next((line for line in lines if line.startswith("0::")), "")
    return Target(
        pid=pid,
        start=c.record.start,
        namespaces=namespaces,
        systemd=bool(c.record.flags & rec.SYSTEMD),
        setgroups=read_text(f"/proc/{pid}/setgroups").strip() != "deny",
        cgroup=(c.record.text("cgroup") if facts.rootless else live_cgroup(c)) or None,
        init_cgroup=_init_cgroup(c, facts, line),
        affinity=_affinity(facts.pid),
        chroot=not namespaces & names.NAMESPACES["mount"] and _root_of(pid) != "/",
    )


def own_namespaces() -> Namespaces:
    """Ours, of the kinds that this kernel has."""
    found = {}
    for kind, file in names.NAMESPACE_FILES.items():
        try:
            info = posix.stat(f"/proc/self/ns/{file}")
        except OSError:
            continue
        found[kind] = info.st_dev, info.st_ino
    return found


def _foreign_namespaces(pid: int, ours: Namespaces) -> int:
    """CLONE_NEW* of the namespaces that the container does not share with us."""
    flags = 0
    for kind, own in ours.items():
        try:
            theirs = posix.stat(f"/proc/{pid}/ns/{names.NAMESPACE_FILES[kind]}")
        except PermissionError:
            raise PyrunError(
                f"cannot look at the container's init, pid {pid}: permission denied",
                hint="exec as the user who made the container, once it is started; or as root",
            ) from None
        except OSError:
            raise PyrunError("container not running", hint="its init has ended just now") from None
        if (theirs.st_dev, theirs.st_ino) != own:
            flags |= names.NAMESPACES[kind]
    return flags


def _root_of(pid: int) -> str:
    try:
        return posix.readlink(f"/proc/{pid}/root")
    except OSError:
        return "/"


def _init_cgroup(c: Container, facts: Facts, line: str) -> str | None:
    """Where the init is, if that is not the container's own cgroup: an init such as systemd's moves itself below it."""
    own = c.record.text("cgroup")
    if not own or facts.cgroup_mount is None or not line:
        return None
    now = facts.cgroup_mount.rstrip("/") + line[3:]
    return now if now.startswith(own + "/") else None


def _affinity(pid: int) -> bytes:
    """The CPUs of a process, as sched_setaffinity(2) takes them."""
    mask = 0
    for cpu in posix.sched_getaffinity(pid):
        mask |= 1 << cpu
    return mask.to_bytes((mask.bit_length() + 63) // 64 * 8, "little")
