"""start: releases a created container's init."""

from __future__ import annotations

import posix

from ..errors import PyrunError
from ..executor import StepFailed, run_plan, was_replayed
from ..oci.load import load_file
from ..plan.lifecycle import plan_start
from ..plan.model.request import Request
from ..plan.model.steps import STAGE2, Spawn
from .record import NOTIFY, SYSTEMD
from .store import CREATED, Container, Store

ENOENT = 2


def request_of(container: Container) -> Request:
    """The request that a container's later plans need."""
    r = container.record
    return Request(
        id=container.id,
        bundle=r.text("bundle"),
        rootfs=r.text("rootfs"),
        state_dir=container.directory,
        cgroup=r.text("cgroup") or None,
        notify=bool(r.flags & NOTIFY),
        systemd=bool(r.flags & SYSTEMD),
    )


def start(store: Store, container: str) -> None:
    """pyrun start. PyrunError when it is not created, or when the init could not exec; it is stopped then."""
    c = store.open(container)
    status = c.status()
    if status != CREATED and not was_replayed():
        what = (
            "cannot start a container that has stopped"
            if status == "stopped"
            else f"cannot start an already {status} container"
            if status != "creating"
            else "cannot start a container that is still being created"
        )
        raise PyrunError(what, hint="start works once, on a container that `pyrun create` made")
    spec = load_file(c.directory + "/config.json")
    request = request_of(c)
    request.notify = request.notify and bool(posix.environ.get(b"NOTIFY_SOCKET"))
    plan = plan_start(spec, request)
    try:
        outcome = run_plan(plan, pid=c.record.pid)
    except StepFailed as e:
        from ..plan.words.step_errors import explain_start_failure

        error = explain_start_failure(e, c, spec)
        if _in_hook(e):
            from .delete import destroy

            destroy(c)
        elif e.lane == STAGE2:
            from .delete import wait_for_end

            wait_for_end(c)
        raise error from None
    if request.notify:
        from .notify import socket_of, wait_until_ready

        wait_until_ready(socket_of(outcome), c.record.pid)
    outcome.close()


def _in_hook(e: StepFailed) -> bool:
    """Whether a startContainer or poststart hook failed, after which the container is destroyed (runtime.md, steps 7
    and 9). Of what the init does behind its park only hooks have a number."""
    return e.substep >> 8 > 0 if e.lane == STAGE2 else isinstance(e.plan.steps[e.step], Spawn)
