"""Ending containers: preStop, the stop signal, the kill, all within one deadline; sidecars last and in reverse.

≠ a kubelet: there is one deadline from the moment that the stop was asked for, so a preStop that is slow never doubles
the grace (kubernetes#115817, #117373). Only who has had no time at all gets two seconds after the signal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...kube.objects.containers import Container
from .actions import Action, BeginStop, Kill, RunHook, Signal
from .observed import AnyContainer, Attempt, Desired, Observed, Stop
from .probes import probe_of
from .restart import is_sidecar

LEAST_S = 2.0  # after the signal, when the grace is used up


def begin_all(desired: Desired, observed: Observed, why: str, begun: float, grace: float) -> Iterator[Action]:
    """Every container that is there is to end by one deadline; one that was to end later ends then."""
    for a in observed.attempts:
        if a.ended:
            continue
        deadline = begun + grace
        if a.stop is None or a.stop.deadline > deadline:
            kept = a.stop or Stop(why, begun, deadline)
            stop = Stop(kept.why, kept.begun, deadline, kept.signalled, kept.killed)
            yield BeginStop(a.id, a.name, stop)


def begin_one(desired: Desired, c: AnyContainer, a: Attempt, why: str, now: float, probe: str = "") -> BeginStop:
    """A container alone, by the pod's grace or, for a probe, that probe's own."""
    grace: float = desired.spec.terminationGracePeriodSeconds or 0
    found = probe_of(c, probe) if probe else None
    if found is not None and found.terminationGracePeriodSeconds is not None:
        grace = found.terminationGracePeriodSeconds
    return BeginStop(a.id, a.name, Stop(why, now, now + grace))


def proceed(c: AnyContainer, a: Attempt, now: float, *, turn: bool) -> Iterator[Action | float]:
    """The next thing to do to a container that is to end, or when that is. turn: it need not wait for others. Where the
    clock was set back behind the stop's begin, its time begins anew."""
    stop = a.stop
    if stop is None or a.ended or stop.killed is not None:
        return
    if stop.begun > now:
        signalled = None if stop.signalled is None else now
        yield BeginStop(a.id, a.name, Stop(stop.why, now, now + stop.deadline - stop.begun, signalled))
        return
    if a.started is None:  # made, and not started: nothing to ask
        yield Kill(a.id, a.name)
        return
    if stop.signalled is not None:
        kill_at = max(stop.deadline, stop.signalled + LEAST_S) if stop.deadline > stop.begun else stop.deadline
        yield Kill(a.id, a.name) if kill_at <= now else kill_at
        return
    hook = isinstance(c, Container) and c.lifecycle is not None and c.lifecycle.preStop is not None
    if hook and stop.deadline > stop.begun and now < stop.deadline:
        if a.pre_stop is None:
            yield RunHook(a.id, a.name, "preStop", stop.deadline)
        if a.pre_stop is None or a.pre_stop.ended is None:
            yield stop.deadline
            return
    if turn or stop.deadline <= now:
        yield Signal(a.id, a.name) if stop.deadline > stop.begun else Kill(a.id, a.name)
    else:
        yield stop.deadline


def has_turn(observed: Observed, c: AnyContainer, sidecars: Sequence[Container]) -> bool:
    """A sidecar waits for all app containers and for the sidecars after it."""
    if not is_sidecar(c) or c not in sidecars:
        return True
    names = [s.name for s in sidecars]
    later = set(names[names.index(c.name) + 1 :])
    return all(a.ended for a in observed.attempts if a.name not in names or a.name in later)
