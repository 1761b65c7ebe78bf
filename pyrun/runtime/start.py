"""start: releases a created container's init."""

from __future__ import annotations

from ..errors import FailedPrecondition
from ..executor import StepFailed, run_plan
from ..oci.load import load_file
from ..plan.lifecycle import plan_start
from ..plan.model.steps import STAGE2, Spawn
from .request import request_of
from .store import CREATED, Container, Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..executor import Replayed
    from ..oci.model import Spec


def start(
    store: Store,
    container: str,
    warn: Callable[[str], None],
    *,
    cancel: int = -1,
    notify: bytes | None = None,
    replayed: Replayed | None = None,
    spec: Spec | None = None,
) -> None:
    """pyrun start. PyrunError when it is not created, or when the init could not exec; it is stopped then.

    notify: the address of the service manager ($NOTIFY_SOCKET) that hears when the program is ready, which is waited
    for, if the container was made for that. cancel, replayed: see run_plan(). spec: what its config.json says, where
    the caller has it."""
    with store.hold(container) as held:
        _start(store.open(container, held), warn, notify, cancel, replayed, spec)


def _start(
    c: Container,
    warn: Callable[[str], None],
    notify: bytes | None,
    cancel: int,
    replayed: Replayed | None,
    spec: Spec | None,
) -> None:
    status = c.status()
    if status != CREATED and replayed is None:
        what = (
            "cannot start a container that has stopped"
            if status == "stopped"
            else f"cannot start an already {status} container"
            if status != "creating"
            else "cannot start a container that is still being created"
        )
        raise FailedPrecondition(what, hint="start works once, on a container that `pyrun create` made")
    spec = spec or load_file(c.path("config.json"))
    request = request_of(c)
    request.notify = request.notify and notify is not None
    plan = plan_start(spec, request)
    try:
        outcome = run_plan(plan, pid=c.record.pid, held=(c.held,), replayed=replayed, cancel=cancel)
    except StepFailed as e:
        from ..plan.words.step_errors import explain_start_failure

        error = explain_start_failure(e, c, spec)
        if _in_hook(e):
            from .delete import destroy

            destroy(c, warn)
        elif e.lane == STAGE2:
            from .delete import wait_for_end

            wait_for_end(c)
        raise error from None
    try:
        if request.notify and notify is not None:
            from .notify import socket_of, wait_until_ready

            wait_until_ready(socket_of(outcome), c.record.pid, notify, cancel)
    finally:
        outcome.close()


def _in_hook(e: StepFailed) -> bool:
    """Whether a startContainer or poststart hook failed, after which the container is destroyed (runtime.md, steps 7
    and 9). Of what the init does behind its park only hooks have a number."""
    return e.substep >> 8 > 0 if e.lane == STAGE2 else isinstance(e.plan.steps[e.step], Spawn)
