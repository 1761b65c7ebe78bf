"""exec: another process in a container.

The container's record says where its init is, the copy of its config.json what it was made with. What its namespaces,
its cgroup and its root are now is read from the host's /proc, for the container may have changed all three.
"""

from __future__ import annotations

import posix

from ..errors import PyrunError
from ..executor import Outcome, StepFailed, run_plan
from ..facts import Facts, collect_facts, read_text
from ..oci import names
from ..oci.load import load_file, load_process, read_file
from ..oci.model import Process, Spec
from ..plan.exec import Target, plan_exec
from ..plan.model.request import Request
from ..plan.model.steps import Chdir, PidfdOpen, Setns
from ..plan.process.exec_process import lend, process_of_words, with_size
from . import record as rec
from .descriptors import kept_descriptors
from .foreground import Foreground, Signals
from .live_cgroup import live_cgroup
from .run import OF_OUR_TERMINAL, Joint
from .store import PAUSED, STOPPED, Container, Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..plan.model.plan import Plan
    from ..plan.process.exec_process import Words
    from .systemd import Attach

    class Options(Words):
        """The command line of exec."""

        id: str
        process: str | None
        console_socket: str | None
        pidfd_socket: str | None
        pid_file: str | None
        detach: bool
        preserve_fds: int
        ignore_paused: bool
        cgroup: tuple[str, ...]


CANNOT_RUN = 255
ESRCH = 3
CREATING = "creating"


def exec_process(store: Store, o: Options, *, rootless: bool | None = None) -> int:
    """pyrun exec. The program's exit code, 0 with --detach. PyrunError, with code 255 when the command can't be run."""
    c = store.open(o.id)
    _check_status(c, o.ignore_paused)
    joint = Joint()
    planned = prepare(c, o, joint, rootless)
    attach = None
    if planned.target.systemd and planned.facts.rootless:
        from .systemd import Attach

        attach = Attach(planned.spec, planned.target, planned.request)
    return _run(planned.plan, joint, attach, o.detach)


class Planned:
    """An exec that is planned but not begun: by what, and the plan."""

    __slots__ = ("facts", "plan", "request", "spec", "target")

    def __init__(self, spec: Spec, process: Process, facts: Facts, target: Target, request: Request) -> None:
        self.spec = spec
        self.facts = facts
        self.target = target
        self.request = request
        self.plan = plan_exec(spec, process, facts, target, request)


def prepare(c: Container, o: Options, joint: Joint, rootless: bool | None) -> Planned:
    """Plans it. joint: gets the terminal."""
    kept = kept_descriptors(o.preserve_fds)
    spec = load_file(c.directory + "/config.json")
    if spec.process is None:
        raise PyrunError("the container has no process whose place the command could take")
    process = _process(spec.process, o)
    _check_terminal(process, o)
    facts = collect_facts(rootless)
    if spec.linux is not None and spec.linux.intel_rdt is not None:
        from ..facts_rare import resctrl_mount

        facts.resctrl_mount = resctrl_mount()
    request = Request(
        id=c.id,
        bundle=c.record.text("bundle"),
        preserve_fds=kept,
        pid_file=o.pid_file,
        console_socket=o.console_socket,
        pidfd_socket=o.pidfd_socket,
        subcgroup=_subcgroup(o.cgroup),
        keyring=not c.record.flags & rec.NO_KEYRING,
    )
    if process.terminal and not o.detach:
        from .console import caller_size

        request.console, request.plain_output = joint.socket()
        size = caller_size()
        process = with_size(process, *size) if size else process
    return Planned(spec, process, facts, collect_target(c, facts), request)


def _run(plan: Plan, joint: Joint, attach: Attach | None, detach: bool) -> int:
    if detach:
        _start(plan, attach).close()
        return 0
    signals = Signals(OF_OUR_TERMINAL if joint.wanted else frozenset())
    terminal = None
    try:
        outcome = _start(plan, attach)
        try:
            terminal = joint.open()
            signals.listen()
            return Foreground(outcome.pid, outcome.pidfd(), signals, terminal).wait()
        finally:
            if terminal is not None:
                terminal.close()
            outcome.close()
    finally:
        joint.close()
        signals.close()


def _start(plan: Plan, attach: Attach | None) -> Outcome:
    try:
        return run_plan(plan, on_yield=attach.on_yield if attach else None)
    except StepFailed as e:
        if e.errno == ESRCH and isinstance(plan.steps[e.step], (PidfdOpen, Setns)):
            raise PyrunError("container not running", hint="its init has ended just now") from None
        from ..plan.words.step_errors import explain_failure

        error = explain_failure(e, run_code=CANNOT_RUN)
        if isinstance(plan.steps[e.step], Chdir):
            error.code = CANNOT_RUN
        if error.pointer is not None and error.pointer.startswith("/process"):
            error.pointer = None  # the process is the command line's, or a file's
        raise error from None


# --- what is asked for ----------------------------------------------------------------------------------------------


def _check_status(c: Container, ignore_paused: bool) -> None:
    status = c.status()
    if status == STOPPED:
        raise PyrunError(
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


def _process(own: Process, o: Options) -> Process:
    if not o.process:
        return process_of_words(own, o)
    process: Process = load_process(read_file(o.process), file=o.process)
    return lend(own, process)


def _check_terminal(process: Process, o: Options) -> None:
    if o.detach and process.terminal and not o.console_socket:
        raise PyrunError(
            "cannot allocate tty if pyrun will detach without setting console socket",
            hint="give --console-socket, or leave out --detach or --tty",
        )
    if o.console_socket and not (o.detach and process.terminal):
        raise PyrunError(
            "cannot use console socket if pyrun will not detach or allocate tty",
            hint="--console-socket needs --detach and --tty",
        )


def _subcgroup(given: tuple[str, ...]) -> str | None:
    """The one --cgroup. runc's `controller:path` is of cgroup v1."""
    if not given:
        return None
    if len(given) > 1 or ":" in given[0]:
        raise PyrunError(
            f"--cgroup {given[-1]}: cgroup v2 has one hierarchy",
            hint="name one cgroup below the container's, without a controller in front",
        )
    if ".." in given[0].split("/"):
        raise PyrunError(f"--cgroup {given[0]}: not below the container's cgroup", hint="a path without ..")
    return given[0]


# --- what there is --------------------------------------------------------------------------------------------------


def collect_target(c: Container, facts: Facts) -> Target:
    """The container as it is now. PyrunError when its init is gone."""
    pid = c.record.pid
    namespaces = _foreign_namespaces(pid)
    lines = read_text(f"/proc/{pid}/cgroup").splitlines()
    line = next((line for line in lines if line.startswith("0::")), "")
    return Target(
        pid=pid,
        start=c.record.start,
        namespaces=namespaces,
        systemd=bool(c.record.flags & rec.SYSTEMD),
        setgroups=read_text(f"/proc/{pid}/setgroups").strip() != "deny",
        cgroup=(c.record.text("cgroup") if facts.rootless else live_cgroup(c)) or None,
        cgroup_line=line,
        init_cgroup=_init_cgroup(c, facts, line),
        affinity=_affinity(),
        chroot=not namespaces & names.NAMESPACES["mount"] and _root_of(pid) != "/",
    )


def _foreign_namespaces(pid: int) -> int:
    """CLONE_NEW* of the namespaces that the container does not share with us."""
    flags = 0
    for kind, file in names.NAMESPACE_FILES.items():
        try:
            ours = posix.stat(f"/proc/self/ns/{file}")
        except OSError:  # a kernel without this kind
            continue
        try:
            theirs = posix.stat(f"/proc/{pid}/ns/{file}")
        except PermissionError:
            raise PyrunError(
                f"cannot look at the container's init, pid {pid}: permission denied",
                hint="exec as the user who made the container, once it is started; or as root",
            ) from None
        except OSError:
            raise PyrunError("container not running", hint="its init has ended just now") from None
        if (ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino):
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


def _affinity() -> bytes:
    """Our CPUs, as sched_setaffinity(2) takes them."""
    mask = 0
    for cpu in posix.sched_getaffinity(0):
        mask |= 1 << cpu
    return mask.to_bytes((mask.bit_length() + 63) // 64 * 8, "little")
