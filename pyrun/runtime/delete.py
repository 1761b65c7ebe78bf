"""delete: the state and the cgroup of a stopped container; with force also of one that runs, or of whatever a killed
create left."""

from __future__ import annotations

import posix
import select

from ..errors import PyrunError, reason
from ..executor import StepFailed, run_plan
from ..facts import read_text
from ..oci.load import load_bytes, read_file
from ..plan.lifecycle import FILES, plan_delete, plan_poststop
from ..plan.model.plan import Builder
from ..plan.model.steps import PARENT, RemoveCgroup, Unlinkat
from .cgroup import LEAVE_S, SIGKILL, kill_threaded, own_cgroup, pids_below, remove_claimed, wait_for_event
from .kill import send
from .record import SHARED_PIDNS
from .request import request_of
from .store import STOPPED, Container, Missing, Store, Unreadable, boot_id

ENOENT, EBUSY = 2, 16
END_MS = 10_000
MOST_NAMED = 10
OLD_FILES = ("exec.seen", "exec.0", "exec.1", "exec.2", "exec.3")  # of a pyrun that kept the plans of execs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..oci.model import Spec
    from ..plan.model.request import Request


def delete(store: Store, container: str, warn: Callable[[str], None], *, force: bool = False) -> None:
    """pyrun delete. force: kill it first, and all that is in its cgroup; no error when it does not exist. warn: called
    with what a poststop hook's failure said."""
    try:
        directory = store.hold(container)
    except Missing:
        if force:
            return
        raise
    with directory as held:
        _delete(store, container, held, force, warn)


def _delete(store: Store, container: str, held: int, force: bool, warn: Callable[[str], None]) -> None:
    try:
        c = store.open(container, held)
    except PyrunError as error:
        if not force or isinstance(error, Unreadable):
            raise
        _remove_debris(store.directory(container), held)
        return
    with own_cgroup(c.record) as cgroup:
        status = c.status()
        if status != STOPPED and not force:  # a created one too (runtime.md, Delete)
            raise PyrunError(
                f"cannot delete container {container} that is not stopped: {status}",
                hint=f"pyrun kill {container} KILL, or delete --force",
            )
        if c.alive():  # by force, or what a create that was killed has left
            _kill_and_wait(c, cgroup)
        remove_claimed(c.record, warn)
        _undo(c, cgroup, force, warn)


def _kill_and_wait(c: Container, cgroup: int) -> None:
    try:
        send(c, SIGKILL)
    except PyrunError:
        if cgroup < 0 and c.alive():  # it can't be killed by its cgroup either
            raise
        return
    if not wait_for_end(c):
        raise PyrunError(
            f"the init, pid {c.record.pid}, did not die of SIGKILL in 10 s",
            hint="it may wait for a disk or a file system that does not answer",
        )


def wait_for_end(c: Container) -> bool:
    """Waits 10 s for an init that is about to end: its end takes as long as that of all in its PID namespace."""
    try:
        pidfd = posix.pidfd_open(c.record.pid)
    except OSError:  # as in exec.py
        return not c.alive()
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return not c.alive() or bool(poll.poll(END_MS))
    finally:
        posix.close(pidfd)


def _undo(c: Container, cgroup: int, kill: bool, warn: Callable[[str], None]) -> None:
    """Runs the delete plan, then the poststop hooks. Of a container from before a reboot only its files are left: what
    has its cgroup's name now is another's."""
    rebooted = c.record.boot_id != boot_id()
    if kill and cgroup >= 0:
        kill_threaded(cgroup)  # the plan kills what is in any other
    _unlink(OLD_FILES, c.held)
    try:
        spec = load_bytes(read_file(c.path("config.json")))
    except PyrunError:
        if cgroup >= 0:
            _remove_cgroup(c, cgroup, kill)
        _remove_debris(c.directory, c.held)
        return
    if not rebooted:
        remove(spec, c, cgroup, kill, warn)
    elif _remove_debris(c.directory, c.held):
        run_poststop(spec, request_of(c), warn)


def remove(spec: Spec, c: Container, cgroup: int, kill: bool, warn: Callable[[str], None]) -> None:
    """What create made, and then the poststop hooks; these are another's when a delete at the same time was quicker.
    c, and its cgroup if there is one, are held. kill: what still runs in the cgroup; else that is an error."""
    request = request_of(c)
    if request.systemd and cgroup >= 0:  # the unit goes before its cgroup
        if not kill and not wait_for_event(cgroup, "populated 0", LEAVE_S):
            raise _occupied(c, cgroup)
        _stop_unit(c.record.text("cgroup"), warn)
    plan = plan_delete(spec, request, _resctrl(spec), kill=kill)
    try:
        run_plan(plan, held=(c.held, cgroup)).close()
    except StepFailed as e:
        if e.errno == ENOENT and isinstance(plan.steps[e.step], Unlinkat):
            return
        if e.errno == EBUSY and isinstance(plan.steps[e.step], RemoveCgroup) and not kill:
            raise _occupied(c, cgroup) from None
        from ..plan.words.step_errors import explain_failure

        raise explain_failure(e, request.id) from None
    run_poststop(spec, request, warn)


def _occupied(c: Container, cgroup: int) -> PyrunError:
    """What lives in the cgroup of a container that has stopped. With a PID namespace of its own nobody can have been
    left, so it is another's."""
    pids = pids_below(cgroup)
    named = [f"{pid} ({read_text(f'/proc/{pid}/comm').strip()})" for pid in pids[:MOST_NAMED]]
    more = [f"and {len(pids) - MOST_NAMED} more"] if len(pids) > MOST_NAMED else []
    who = "processes that may be another's" if c.record.flags & SHARED_PIDNS else "processes of others"
    return PyrunError(
        f"{who} run in its cgroup {c.record.text('cgroup')}: {', '.join(named + more) or 'of another PID namespace'}",
        hint=f"let them end or move them to another cgroup; pyrun delete --force {c.id} kills them all",
    )


def _stop_unit(cgroup: str, warn: Callable[[str], None]) -> None:
    """systemd's unit. Where systemd can't be asked the cgroup is removed all the same, and with it the unit ends."""
    from .systemd import stop_unit

    try:
        stop_unit(cgroup)
    except PyrunError as e:
        warn("\n".join(e.lines()))


def _resctrl(spec: Spec) -> str | None:
    """Where resctrl is mounted, for a container that has a group there."""
    if spec.linux is None or spec.linux.intel_rdt is None:
        return None
    from ..facts_rare import resctrl_mount

    return resctrl_mount()


def run_poststop(spec: Spec, request: Request, warn: Callable[[str], None]) -> None:
    """The poststop hooks of a container that is gone. One that fails is a warning, and those behind it still run
    (runtime.md, step 13)."""
    for plan in plan_poststop(spec, request):
        try:
            run_plan(plan).close()
        except StepFailed as e:
            from ..plan.words.step_errors import explain_failure

            warn("\n".join(explain_failure(e, request.id).lines()))


def destroy(c: Container, warn: Callable[[str], None]) -> None:
    """Stops and removes a container, which is held: the lifecycle's steps 12 and 13 (runtime.md)."""
    with own_cgroup(c.record) as cgroup:
        _kill_and_wait(c, cgroup)
        _undo(c, cgroup, bool(c.record.flags & SHARED_PIDNS), warn)


def _remove_cgroup(c: Container, cgroup: int, kill: bool) -> None:
    b = Builder()
    b.add(PARENT, RemoveCgroup(path=c.record.text("cgroup"), cgroup=b.slot("cgroup"), kill=int(kill)))
    try:
        run_plan(b.plan(), held=(cgroup,)).close()
    except StepFailed as e:
        if e.errno == EBUSY and not kill:
            raise _occupied(c, cgroup) from None
        from ..plan.words.step_errors import explain_failure

        raise explain_failure(e, c.id) from None


def _unlink(names: tuple[str, ...], held: int) -> None:
    """Those that are there and may be unlinked."""
    for name in names:
        try:
            posix.unlink(name, dir_fd=held)
        except OSError:
            continue


def _remove_debris(directory: str, held: int) -> bool:
    """What is left of a create that was killed before there was a record, of one whose files are damaged, or of one
    from before a reboot. held: the directory. False when another delete was quicker."""
    _unlink((*OLD_FILES, *FILES, "record", "notify/notify.sock"), held)
    try:
        posix.rmdir("notify", dir_fd=held)
    except OSError:  # most have none
        pass
    if not posix.fstat(held).st_nlink:  # what has the name now is another's
        return False
    try:
        posix.rmdir(directory)
    except FileNotFoundError:
        return False
    except OSError as e:
        raise PyrunError(
            f"{directory}: {reason(e)}", hint="look what is in there; pyrun removes only its own files"
        ) from None
    return True
