"""The face of the planner."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ...kube.objects.containers import Container
from ...kube.objects.status import PodStatus
from .actions import (
    Action,
    Admit,
    BeginStop,
    Fail,
    Forget,
    Kill,
    Later,
    Remove,
    RestartAll,
    RunHook,
    RunSandbox,
    StopSandbox,
)
from .back_off import waits_until
from .observed import AnyContainer, Attempt, Desired, NodeFacts, Observed, Stop
from .probes import due, has_failed, post_start_done
from .resize import must_restart, resize
from .restart import RESIZED, RESTARTING_ALL, is_past, is_sidecar, who_restarts_all
from .start import Step, is_done, pulls, start
from .status import status_of
from .stop import begin_all, begin_one, has_turn, proceed

UNHEALTHY = {"startup": "its startup probe failed", "liveness": "its liveness probe failed"}


@dataclass(frozen=True, slots=True)
class Decision:
    """actions: to be begun now, in this order and side by side. wake: when to plan again although nothing happens.

    probes: to be begun then, and again by probes.next_time(), until there is another plan."""

    actions: tuple[Action, ...]
    wake: float | None
    status: PodStatus
    probes: tuple[Later, ...] = ()


def plan_pod(desired: Desired, observed: Observed, node: NodeFacts, now: float) -> Decision:
    """What to do for one pod. To be asked anew after everything that happens to it, and at `wake`."""
    actions: dict[tuple[str, ...], Action] = {}
    wake: float | None = None
    probes: list[Later] = []
    for step in _steps(desired, observed, node, now):
        if isinstance(step, float):
            wake = step if wake is None else min(wake, step)
        elif isinstance(step, Later):
            probes.append(step)
        elif step.key not in observed.busy:
            actions.setdefault(step.key, step)
    return Decision(tuple(actions.values()), wake, status_of(desired, observed, node, now), tuple(probes))


def containers_of(desired: Desired) -> dict[str, AnyContainer]:
    spec = desired.spec
    return {c.name: c for c in [*(spec.initContainers or ()), *spec.containers, *(spec.ephemeralContainers or ())]}


def _steps(desired: Desired, observed: Observed, node: NodeFacts, now: float) -> Iterator[Step]:
    yield from _leftovers(observed)
    if desired.deleted is not None:
        yield from _end(desired, observed, "the pod is deleted", desired.deleted, desired.grace, now)
        if _is_gone(observed):
            yield Forget()
        return
    if observed.failure is not None:
        grace = _grace(desired) if observed.end_grace is None else observed.end_grace
        yield from _end(desired, observed, observed.failure[0], now, grace, now)
        return
    if observed.admitted is None:
        yield Admit()
        return
    limit = desired.spec.activeDeadlineSeconds
    if limit is not None and observed.started is not None and not _is_finished(desired, observed):
        if observed.started + limit <= now:
            yield Fail("DeadlineExceeded", f"Pod was active on the node longer than {limit} s")
            return
        yield observed.started + limit
    if is_done(desired, observed):
        yield from _end(desired, observed, "all its containers are done", now, _grace(desired), now)
        return
    yield from pulls(desired, observed, node, now)
    if observed.sandbox is None or not observed.sandbox.ready:
        yield from _new_sandbox(desired, observed, now)
        return
    yield from _keep(desired, observed, now)
    yield from resize(desired, observed, now)
    if (who := who_restarts_all(desired, observed)) is not None:
        yield from _restart_all(desired, observed, who)
    elif all(a.ended or not is_past(observed, a) for a in observed.attempts):
        yield from start(desired, observed, node, now)


def _restart_all(desired: Desired, observed: Observed, who: Attempt) -> Iterator[Step]:
    """When nothing is being started. Ephemeral containers stay."""
    if any(key[0] == "run" for key in observed.busy):
        return
    every = [*(desired.spec.initContainers or ()), *desired.spec.containers]
    lasts = {c.name: last.attempt for c in every if (last := observed.last(c.name)) is not None}
    yield RestartAll(lasts, f"container {who.name} has ended with {who.code}")


def _grace(desired: Desired) -> float:
    return float(desired.spec.terminationGracePeriodSeconds or 0)


def _is_finished(desired: Desired, observed: Observed) -> bool:
    return is_done(desired, observed) and all(a.ended for a in observed.attempts)


def _is_gone(observed: Observed) -> bool:
    """Nothing of it is there or under way but what Forget takes away."""
    making = {"run", "sandbox", "preStop", "postStart", "resize"}
    return (
        all(a.ended for a in observed.attempts)
        and (observed.sandbox is None or not observed.sandbox.ready)
        and not any(key[0] in making for key in observed.busy)
    )


def _new_sandbox(desired: Desired, observed: Observed, now: float) -> Iterator[Step]:
    """Containers of one that is gone end first; then another, after a back-off where the last one failed."""
    alive = [a for a in observed.attempts if not a.ended]
    for a in alive:
        yield Kill(a.id, a.name)
    if alive:
        return
    failed = observed.sandbox_error
    begin = waits_until(failed, failed.failed, desired.retried, now) if failed else 0.0
    if begin > now:
        yield begin
    else:
        yield RunSandbox(observed.sandbox.attempt + 1 if observed.sandbox else 0)


def _keep(desired: Desired, observed: Observed, now: float) -> Iterator[Step]:
    """Of the containers that run: hooks, probes, and whom to end."""
    for name, c in containers_of(desired).items():
        a = observed.last(name)
        if a is None or a.ended:
            continue
        if a.stop is not None:
            yield from proceed(c, a, now, turn=True)
        elif is_past(observed, a):
            yield BeginStop(a.id, a.name, Stop(RESTARTING_ALL, now, now))
            continue
        elif why := _why_to_end(observed, c, a):
            yield begin_one(desired, c, a, why[0], now, why[1])
            continue
        elif a.running and a.post_start is None and _has_post_start(c):
            yield RunHook(a.id, name, "postStart")
        yield from due(observed, c, a, now, stopping=a.stop is not None)


def _has_post_start(c: AnyContainer) -> bool:
    return isinstance(c, Container) and c.lifecycle is not None and c.lifecycle.postStart is not None


def _why_to_end(observed: Observed, c: AnyContainer, a: Attempt) -> tuple[str, str] | None:
    """(why, the probe whose grace counts) of a container that must not go on."""
    if a.asked != (c.image or ""):
        return "its image has changed", ""
    if isinstance(c, Container) and a.running and must_restart(c, a):
        return RESIZED, ""
    if a.post_start is not None and a.post_start.error:
        return f"its postStart failed: {a.post_start.error}", ""
    if a.running and post_start_done(c, a) and (kind := has_failed(observed, c, a)):
        return UNHEALTHY[kind], kind
    return None


def _end(desired: Desired, observed: Observed, why: str, begun: float, grace: float, now: float) -> Iterator[Step]:
    """All containers by one deadline, the sandbox after the last."""
    known = containers_of(desired)
    sidecars = [c for c in desired.spec.initContainers or () if is_sidecar(c)]
    yield from begin_all(desired, observed, why, begun, grace)
    for a in observed.attempts:
        c = known.get(a.name)
        if a.ended or c is None:
            continue
        yield from proceed(c, a, now, turn=has_turn(observed, c, sidecars))
        if desired.deleted is not None and a.running:
            yield from due(observed, c, a, now, stopping=True)
    under_way = any(key[0] in ("run", "preStop", "postStart") for key in observed.busy)
    if observed.sandbox is not None and observed.sandbox.ready and not under_way:
        if all(a.ended for a in observed.attempts):
            yield StopSandbox(observed.sandbox.id)


def _leftovers(observed: Observed) -> Iterable[Action]:
    """Of each name the last one and the one before it are kept, for status and logs."""
    names = {a.name for a in observed.attempts}
    for name in sorted(names):
        for a in [a for a in observed.attempts if a.name == name][:-2]:
            if a.ended:
                yield Remove(a.id, name, a.attempt)
