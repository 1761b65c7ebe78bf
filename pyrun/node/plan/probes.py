"""When probes run, and what comes of their results. Source: kubernetes pkg/kubelet/prober/worker.go.

Readiness begins as failed, liveness as good, startup as unknown. Until a startup probe has succeeded the other two do
not run. Liveness or startup that failed holds until there is a new container, as its state belongs to the old one.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...kube.objects.containers import Container, Probe
from .actions import Later, RunProbe
from .observed import KINDS, LIVENESS, READINESS, STARTUP, AnyContainer, Attempt, Observed, ProbeState

MAX_OUTPUT = 10 << 10  # characters of a probe's output that are kept


def probe_of(c: AnyContainer, kind: str) -> Probe | None:
    return getattr(c, f"{kind}Probe") if isinstance(c, Container) else None


def fold(state: ProbeState | None, probe: Probe, good: bool, begun: float, output: str = "") -> ProbeState:
    """The state after one more result: thresholds count results in a row."""
    before = state or ProbeState()
    in_row = (before.good if good else before.bad) + 1
    threshold = (probe.successThreshold or 1) if good else (probe.failureThreshold or 3)
    verdict = good if in_row >= threshold else before.verdict
    return ProbeState(in_row if good else 0, 0 if good else in_row, begun, verdict, output[:MAX_OUTPUT])


def next_time(before: ProbeState | None, after: ProbeState, probe: Probe) -> float | None:
    """When it comes again if nothing else happens to the pod; None where its result is to be planned for: a plan looks
    at verdicts, and at nothing else of a probe."""
    if after.last is None or after.verdict != (before.verdict if before else None):
        return None
    return after.last + (probe.periodSeconds or 10)


def verdict(observed: Observed, a: Attempt, kind: str) -> bool | None:
    state = observed.probes.get((a.id, kind))
    return state.verdict if state else None


def is_started(observed: Observed, c: AnyContainer, a: Attempt | None) -> bool:
    """It runs, its postStart is through, and its startup probe has succeeded."""
    if a is None or not a.running or not post_start_done(c, a):
        return False
    return probe_of(c, STARTUP) is None or verdict(observed, a, STARTUP) is True


def post_start_done(c: AnyContainer, a: Attempt) -> bool:
    if not (isinstance(c, Container) and c.lifecycle and c.lifecycle.postStart):
        return True
    return a.post_start is not None and a.post_start.ended is not None and not a.post_start.error


def is_ready(observed: Observed, c: AnyContainer, a: Attempt | None) -> bool:
    if a is None or not is_started(observed, c, a):
        return False
    return probe_of(c, READINESS) is None or verdict(observed, a, READINESS) is True


def has_failed(observed: Observed, c: AnyContainer, a: Attempt) -> str | None:
    """The kind of a probe for which the container must end."""
    for kind in (STARTUP, LIVENESS):
        if probe_of(c, kind) is not None and verdict(observed, a, kind) is False:
            return kind
    return None


def due(observed: Observed, c: AnyContainer, a: Attempt, now: float, *, stopping: bool) -> Iterator[RunProbe | Later]:
    """Probes to run now, and those to come. stopping: only readiness goes on. Where the clock was set back
    behind the last one, or behind the container's start, the next one is now."""
    started = is_started(observed, c, a)
    for kind in KINDS:
        probe = probe_of(c, kind)
        if probe is None or not a.running or a.started is None or not post_start_done(c, a):
            continue
        if (kind == STARTUP) == started and probe_of(c, STARTUP) is not None:
            continue
        if kind != READINESS and (stopping or verdict(observed, a, kind) is False):
            continue
        state = observed.probes.get((a.id, kind))
        begin = a.started + (probe.initialDelaySeconds or 0) if a.started <= now else now
        if state is not None and state.last is not None and state.last <= now:
            begin = max(begin, state.last + (probe.periodSeconds or 10))
        found = RunProbe(a.id, c.name, kind)
        yield found if begin <= now else Later(begin, found)
