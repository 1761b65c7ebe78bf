"""What is started next: init containers in order, sidecars among them, then all app containers.

Source: kubernetes pkg/kubelet/kuberuntime/kuberuntime_manager.go, computePodActions and its init containers' part.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...kube.objects.containers import Container
from .actions import Action, Later, Run
from .back_off import after, waits_until
from .images import Wanted, images_of, is_here, pull
from .observed import AnyContainer, Attempt, Desired, NodeFacts, Observed
from .probes import is_started
from .restart import is_changed, is_over, is_past, is_sidecar, restarts, restarts_all

Step = Action | Later | float  # an action, now or later, or the time of the next look


def current(observed: Observed, name: str) -> Attempt | None:
    """The newest container of a name, if it belongs to the sandbox that is there, and all were not restarted since:
    init containers run again then."""
    last, sandbox = observed.last(name), observed.sandbox
    if last is None or sandbox is None or last.made < sandbox.made or is_past(observed, last):
        return None
    return last


def is_initialized(desired: Desired, observed: Observed) -> bool:
    """All init containers are through. An app container in this sandbox says so as well, whatever became of them."""
    if any(current(observed, c.name) is not None for c in desired.spec.containers):
        return True
    return all(_is_through(observed, c) for c in desired.spec.initContainers or ())


def _is_through(observed: Observed, c: Container) -> bool:
    a = current(observed, c.name)
    return is_started(observed, c, a) if is_sidecar(c) else a is not None and a.succeeded


def failed_init(desired: Desired, observed: Observed) -> Container | None:
    """The init container that failed and is not tried again: with it the pod has failed."""
    for c in desired.spec.initContainers or ():
        a = current(observed, c.name)
        if a is None or is_sidecar(c):
            continue
        if a.ended and a.code != 0 and not restarts(c, desired.spec, a.code, init=True):
            return c
    return None


def is_done(desired: Desired, observed: Observed) -> bool:
    """Nothing of the pod will run again but sidecars, which are to end."""
    if failed_init(desired, observed) is not None:
        return True
    return all(is_over(desired, observed, c) for c in desired.spec.containers)


def start(desired: Desired, observed: Observed, node: NodeFacts, now: float) -> Iterator[Step]:
    """In a sandbox that is ready."""
    for ephemeral in desired.spec.ephemeralContainers or ():
        if observed.last(ephemeral.name) is None:
            yield from start_one(desired, observed, ephemeral, node, now)
    initialized = any(current(observed, c.name) is not None for c in desired.spec.containers)
    for c in desired.spec.initContainers or ():
        a = current(observed, c.name)
        if is_sidecar(c):
            if a is None or a.ended:
                yield from start_one(desired, observed, c, node, now)
            if not initialized and not is_started(observed, c, a):
                return
        elif not initialized:
            if a is None or (a.ended and not a.succeeded):
                yield from start_one(desired, observed, c, node, now)
                return
            if not a.ended:
                return
    for c in desired.spec.containers:
        last = observed.last(c.name)
        if last is None or (last.ended and not is_over(desired, observed, c)):
            yield from start_one(desired, observed, c, node, now)


def start_one(desired: Desired, observed: Observed, c: AnyContainer, node: NodeFacts, now: float) -> Iterator[Step]:
    """Itself, when its image is here (pulls() is about that) and nothing is waited for."""
    if not is_here(desired, observed, c) or ("resize",) in observed.busy:
        return
    failed = observed.creations.get(c.name)
    if failed is not None and (begin := waits_until(failed, failed.failed, desired.retried, now)) > now:
        yield begin
        return
    begin = may_start(desired, observed, c, now)
    if begin > now:
        yield begin
        return
    last = observed.last(c.name)
    if last is None or last.finished is None:
        yield Run(c.name, 0)
        return
    kept = None if _at_once(observed, c, last) else observed.restarts.get(c.name)
    yield Run(c.name, last.attempt + 1, after(kept, last.finished, now, node.longest_back_off, desired.retried))


def may_start(desired: Desired, observed: Observed, c: AnyContainer, now: float) -> float:
    """When the back-off of a container that ended is over; 0 for one that has not run."""
    last = observed.last(c.name)
    if last is None or last.finished is None or _at_once(observed, c, last):
        return 0.0
    return waits_until(observed.restarts.get(c.name), last.finished, desired.retried, now)


def _at_once(observed: Observed, c: AnyContainer, last: Attempt) -> bool:
    """Without a back-off: it did not end by itself. ≠ a kubelet: who has all restarted waits as others that end."""
    return is_changed(c, last) or (is_past(observed, last) and not restarts_all(c, last))


def pulls(desired: Desired, observed: Observed, node: NodeFacts, now: float) -> Iterator[Step]:
    """≠ a kubelet: the images of all containers that are to come, at once, while the sandbox is made."""
    spec = desired.spec
    running = sum(key[0] == "pull" for key in observed.busy)
    wanted: list[AnyContainer] = [
        *(c for c in spec.initContainers or () if is_sidecar(c) or not _is_through(observed, c)),
        *(c for c in spec.containers if not is_over(desired, observed, c)),
        *(c for c in spec.ephemeralContainers or () if observed.last(c.name) is None),
    ]
    coming = [c for c in wanted if (last := observed.last(c.name)) is None or last.ended]
    images: dict[str, Wanted] = {}
    for one in (one for c in coming for one in images_of(spec, c)):
        images.setdefault(one.image, one)
    for one in images.values():
        for step in pull(desired, observed, one, node, now):
            if isinstance(step, float):
                yield step
            elif running < node.parallel_pulls and step.key not in observed.busy:
                running += 1
                yield step
