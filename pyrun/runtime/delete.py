"""delete: the state and the cgroup of a stopped container; with force also of one that runs, or of whatever a killed
create left."""

from __future__ import annotations

import posix
import select

from ..errors import PyrunError, reason
from ..executor import StepFailed, run_plan
from ..oci.load import load_bytes, read_file
from ..plan.lifecycle import FILES, plan_delete, plan_poststop
from ..plan.model.steps import Unlinkat
from .kill import SIGKILL, send
from .request import request_of
from .store import STOPPED, Container, Store, Unreadable, boot_id

ENOENT = 2
END_MS = 10_000

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..oci.model import Spec
    from ..plan.model.request import Request


def delete(store: Store, container: str, warn: Callable[[str], None], *, force: bool = False) -> None:
    """pyrun delete. force: kill it first; no error when it does not exist. warn: called with what a poststop hook's
    failure said."""
    directory = store.directory(container)
    try:
        c = store.open(container)
    except PyrunError as error:
        if not force or isinstance(error, Unreadable):
            raise
        _remove_debris(directory)
        return
    status = c.status()
    if status != STOPPED and not force:  # a created one too (runtime.md, Delete)
        raise PyrunError(
            f"cannot delete container {container} that is not stopped: {status}",
            hint=f"pyrun kill {container} KILL, or delete --force",
        )
    if status != STOPPED:
        _kill_and_wait(c)
    _undo(c, warn)


def _kill_and_wait(c: Container) -> None:
    try:
        send(c, SIGKILL)
    except PyrunError:
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
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return not c.alive() or bool(poll.poll(END_MS))
    finally:
        posix.close(pidfd)


def _undo(c: Container, warn: Callable[[str], None]) -> None:
    """Runs the delete plan, then the poststop hooks. Of a container from before a reboot only its files are left: what
    has its cgroup's name now is another's."""
    rebooted = c.record.boot_id != boot_id()
    try:
        spec = load_bytes(read_file(c.directory + "/config.json"))
    except PyrunError:
        if not rebooted:
            _remove_cgroup(c)
        _remove_debris(c.directory)
        return
    if not rebooted:
        remove(spec, request_of(c), warn)
    elif _remove_debris(c.directory):
        run_poststop(spec, request_of(c), warn)


def remove(spec: Spec, request: Request, warn: Callable[[str], None]) -> None:
    """What create made, and then the poststop hooks; these are another's when a delete at the same time was quicker."""
    if request.systemd and request.cgroup and is_there(request.cgroup):  # the unit goes before its cgroup
        _stop_unit(request.cgroup, warn)
    plan = plan_delete(spec, request, _resctrl(spec))
    try:
        run_plan(plan).close()
    except StepFailed as e:
        if e.errno == ENOENT and isinstance(plan.steps[e.step], Unlinkat):
            return
        from ..plan.words.step_errors import explain_failure

        raise explain_failure(e, request.id) from None
    run_poststop(spec, request, warn)


def is_there(path: str) -> bool:
    """Whether there is a file of that name; yes where that can't be told."""
    try:
        posix.stat(path)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True


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
    """Stops and removes a container whose start failed in a hook: the lifecycle's steps 12 and 13 (runtime.md)."""
    _kill_and_wait(c)
    _undo(c, warn)


def _remove_cgroup(c: Container) -> None:
    from ..plan.model.plan import Builder
    from ..plan.model.steps import PARENT, RemoveCgroup

    if c.record.text("cgroup"):
        b = Builder()
        b.add(PARENT, RemoveCgroup(path=c.record.text("cgroup"), recursive=1))
        run_plan(b.plan()).close()


def _remove_debris(directory: str) -> bool:
    """What is left of a create that was killed before there was a record, of one whose files are damaged, or of one
    from before a reboot. False when another delete was quicker."""
    for name in (*FILES, "notify/notify.sock"):
        try:
            posix.unlink(f"{directory}/{name}")
        except OSError:
            continue
    try:
        posix.rmdir(directory + "/notify")
    except OSError:  # most have none
        pass
    try:
        posix.rmdir(directory)
    except FileNotFoundError:
        return False
    except OSError as e:
        raise PyrunError(
            f"{directory}: {reason(e)}", hint="look what is in there; pyrun removes only its own files"
        ) from None
    return True
