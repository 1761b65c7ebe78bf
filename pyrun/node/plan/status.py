"""A pod's status: phase, conditions and containers, as controllers and people read them.

Sources: kubernetes pkg/kubelet/kubelet_pods.go (getPhase, convertToAPIContainerStatuses), status/generate.go.
"""

from __future__ import annotations

from datetime import UTC, datetime

from ...kube.objects.containers import Container, ResourceRequirements
from ...kube.objects.status import (
    ContainerState,
    ContainerStateRunning,
    ContainerStateTerminated,
    ContainerStateWaiting,
    ContainerStatus,
    ContainerUser,
    HostIP,
    PodCondition,
    PodIP,
    PodStatus,
    VolumeMountStatus,
)
from ..qos import qos_class
from .images import why_waiting
from .observed import AnyContainer, Attempt, Desired, NodeFacts, Observed
from .probes import is_ready, is_started, post_start_done
from .resize import resize_conditions
from .restart import (
    RESTARTING_ALL,
    is_over,
    is_past,
    is_sidecar,
    may_restart_all,
    restarts,
    who_restarts_all,
)
from .start import current, failed_init, is_done, is_initialized, may_start

BACK_OFF = "CrashLoopBackOff"


def rfc3339(t: float) -> str:
    return datetime.fromtimestamp(t, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def status_of(desired: Desired, observed: Observed, node: NodeFacts, now: float) -> PodStatus:
    spec = desired.spec
    found = phase(desired, observed)
    addresses = observed.sandbox.addresses if observed.sandbox and observed.sandbox.ready else ()
    if spec.hostNetwork and observed.sandbox:
        addresses = node.addresses
    reason, message = (observed.failure if found == "Failed" else None) or (None, None)
    return PodStatus(
        phase=found,
        reason=reason,
        message=message,
        conditions=_conditions(desired, observed, found),
        initContainerStatuses=[_container(desired, observed, c, now, init=True) for c in spec.initContainers or ()]
        or None,
        containerStatuses=[_container(desired, observed, c, now) for c in spec.containers],
        ephemeralContainerStatuses=[_container(desired, observed, c, now) for c in spec.ephemeralContainers or ()]
        or None,
        hostIP=node.addresses[0] if node.addresses else None,
        hostIPs=[HostIP(ip=ip) for ip in node.addresses] or None,
        podIP=addresses[0] if addresses else None,
        podIPs=[PodIP(ip=ip) for ip in addresses] or None,
        qosClass=qos_class(spec),
        startTime=rfc3339(observed.started) if observed.started is not None else None,
    )


def phase(desired: Desired, observed: Observed) -> str:
    """Failed and Succeeded only when nothing of the pod runs or will run."""
    spec = desired.spec
    quiet = all(a.ended for a in observed.attempts) and not any(key[0] == "run" for key in observed.busy)
    lasts = [observed.last(c.name) for c in spec.containers]
    if observed.failure is not None and quiet:
        return "Failed"
    if failed_init(desired, observed) is not None and quiet:
        return "Failed"
    if desired.deleted is not None and quiet and observed.attempts:
        good = all(a is not None and a.succeeded for a in lasts)
        return "Succeeded" if good else "Failed"
    if not is_initialized(desired, observed) or not all(_has_begun(observed, c) for c in spec.containers):
        return "Pending"
    if is_done(desired, observed) and quiet:
        return "Succeeded" if all(a is not None and a.code == 0 for a in lasts) else "Failed"
    return "Running"


def _has_begun(observed: Observed, c: Container) -> bool:
    """It runs or has run: until a postStart is through it does not."""
    a = observed.last(c.name)
    if a is None or observed.before(c.name) is not None:
        return a is not None
    failing = a.ended and a.started is None and ("run", c.name) in observed.busy
    return not _is_starting(c, a) and not failing


def _is_starting(c: AnyContainer, a: Attempt) -> bool:
    """It was made, and its program has not begun, or its postStart has not succeeded."""
    return not a.ended and (a.started is None or not post_start_done(c, a))


def _conditions(desired: Desired, observed: Observed, phase: str) -> list[PodCondition]:
    spec = desired.spec
    out = [PodCondition(type="PodScheduled", status="True"), _ready_to_start(observed)]
    if may_restart_all(spec):
        out.append(_restarting(desired, observed, phase))
    if observed.disrupted and observed.failure is not None:
        out.append(_plain("DisruptionTarget", True, observed.disrupted, observed.failure[1]))
    if phase not in ("Succeeded", "Failed"):
        out += resize_conditions(desired, observed)
    waiting = [c.name for c in spec.initContainers or () if not _init_done(observed, c)]
    if is_initialized(desired, observed) or phase == "Succeeded" or _was_initialized(desired, observed):
        out.append(_plain("Initialized", True, "PodCompleted" if phase == "Succeeded" else None))
    else:
        text = f"containers with incomplete status: [{' '.join(waiting)}]"
        out.append(_plain("Initialized", False, "ContainersNotInitialized", text))
    kept: list[Container] = [*(c for c in spec.initContainers or () if is_sidecar(c)), *spec.containers]
    unready = [c.name for c in kept if not is_ready(observed, c, observed.last(c.name))]
    if phase in ("Succeeded", "Failed"):
        reason = "PodCompleted" if phase == "Succeeded" else "PodFailed"
        return [*out, _plain("ContainersReady", False, reason), _plain("Ready", False, reason)]
    if unready:
        text = f"containers with unready status: [{' '.join(unready)}]"
        found = [_plain(name, False, "ContainersNotReady", text) for name in ("ContainersReady", "Ready")]
        return [*out, *found]
    out.append(_plain("ContainersReady", True))
    gates = [_gate(g.conditionType, observed) for g in spec.readinessGates or ()]
    if text := ", ".join(gate for gate in gates if gate):
        return [*out, _plain("Ready", False, "ReadinessGatesNotReady", text)]
    return [*out, _plain("Ready", True)]


def _ready_to_start(observed: Observed) -> PodCondition:
    type, sandbox = "PodReadyToStartContainers", observed.sandbox
    if sandbox is not None and sandbox.ready:
        return _plain(type, True)
    return _plain(type, False, "PodSandboxNotReady", "pod sandbox is not ready" if sandbox else "no pod sandbox exists")


def _gate(name: str, observed: Observed) -> str:
    """What is wrong with a readiness gate; empty: it is true."""
    found = observed.conditions.get(name)
    if found is None:
        return f'corresponding condition of pod readiness gate "{name}" does not exist.'
    return "" if found else f'the status of pod readiness gate "{name}" is not "True", but False'


def _restarting(desired: Desired, observed: Observed, phase: str) -> PodCondition:
    """Until nothing runs any more of what was there."""
    type = "AllContainersRestarting"
    if phase in ("Succeeded", "Failed"):
        return _plain(type, False, "PodCompleted" if phase == "Succeeded" else "PodFailed")
    past = any(is_past(observed, a) and not a.ended for a in observed.attempts)
    if not past and who_restarts_all(desired, observed) is None:
        return _plain(type, False)
    return _plain(type, True, "RestartAllContainersStarted", "container exited with restart policy rule")


def _was_initialized(desired: Desired, observed: Observed) -> bool:
    """What has been stays so while init containers run once more, as with a kubelet from 1.36 on."""
    return any(observed.last(c.name) is not None for c in desired.spec.containers)


def _init_done(observed: Observed, c: Container) -> bool:
    a = current(observed, c.name)
    return is_started(observed, c, a) if is_sidecar(c) else a is not None and a.succeeded


def _plain(type: str, good: bool, reason: str | None = None, message: str | None = None) -> PodCondition:
    return PodCondition(type=type, status="True" if good else "False", reason=reason, message=message)


def _container(
    desired: Desired, observed: Observed, c: AnyContainer, now: float, *, init: bool = False
) -> ContainerStatus:
    a = observed.last(c.name)
    state, previous = _state(desired, observed, c, a, now, init), observed.before(c.name)
    if a is not None and a.ended and state.terminated is None:
        previous = a
    ordinary_init = init and not is_sidecar(c)
    ready = a is not None and a.succeeded if ordinary_init else is_ready(observed, c, a)
    return ContainerStatus(
        name=c.name,
        image=c.image or "",
        imageID=a.image if a else "",
        containerID=f"pyrun://{a.id}" if a else None,
        ready=ready,
        started=is_started(observed, c, a),
        restartCount=a.attempt if a else 0,
        state=state,
        lastState=ContainerState(terminated=terminated(previous)) if previous else None,
        resources=_resources(c, a),
        user=ContainerUser(linux=a.user) if a and a.user else None,
        volumeMounts=_mounts(c),
        allocatedResources=(c.resources.requests or None) if a and c.resources else None,
    )


def _mounts(c: AnyContainer) -> list[VolumeMountStatus] | None:
    """This runtime can make any mount read-only with all that is below it, so IfPossible is Enabled."""
    found = []
    for mount in c.volumeMounts or ():
        one = VolumeMountStatus(mountPath=mount.mountPath, name=mount.name)
        if mount.readOnly:
            wanted = mount.recursiveReadOnly in ("IfPossible", "Enabled")
            one.readOnly, one.recursiveReadOnly = True, "Enabled" if wanted else "Disabled"
        found.append(one)
    return found or None


def _resources(c: AnyContainer, a: Attempt | None) -> ResourceRequirements | None:
    """What it has while it runs, else what the node has given it."""
    if a is None:
        return None
    return (a.resources if a.running else None) or c.resources or ResourceRequirements()


def _state(
    desired: Desired, observed: Observed, c: AnyContainer, a: Attempt | None, now: float, init: bool
) -> ContainerState:
    if a is not None and a.running and a.started is not None and not _is_starting(c, a):
        return ContainerState(running=ContainerStateRunning(startedAt=rfc3339(a.started)))
    if a is not None and a.ended and not _comes_again(desired, observed, c, a, init):
        return ContainerState(terminated=terminated(a))
    reason, message = _why(desired, observed, c, a, now)
    if a is not None and a.ended and reason == BACK_OFF and _is_due(desired, observed, c, a, now):
        return ContainerState(terminated=terminated(a))
    return ContainerState(waiting=ContainerStateWaiting(reason=reason, message=message))


def _comes_again(desired: Desired, observed: Observed, c: AnyContainer, a: Attempt, init: bool) -> bool:
    if desired.deleted is not None or observed.failure is not None or not isinstance(c, Container):
        return False
    if is_sidecar(c):
        return not is_done(desired, observed)
    if init:
        return is_past(observed, a) or (not a.succeeded and restarts(c, desired.spec, a.code, init=True))
    return not is_over(desired, observed, c)


def _is_due(desired: Desired, observed: Observed, c: AnyContainer, a: Attempt, now: float) -> bool:
    """The next one comes at once, and is not backed off."""
    return a.finished is not None and may_start(desired, observed, c, now) <= a.finished


def _why(
    desired: Desired, observed: Observed, c: AnyContainer, a: Attempt | None, now: float
) -> tuple[str, str | None]:
    """Why a container does not run yet."""
    if found := why_waiting(desired, observed, c, now):
        return found
    failed = observed.creations.get(c.name)
    if failed is not None:
        reason, _, text = failed.error.partition(": ")
        return reason, text or None
    begin = may_start(desired, observed, c, now)
    if a is not None and a.ended and is_past(observed, a) and begin <= now:
        return RESTARTING_ALL, "all containers of the pod restart"
    if a is not None and a.ended:
        left = max(0.0, begin - now)
        return BACK_OFF, f"back-off {left:.0f} s left, restarting container {c.name} of {desired.name}"
    return "PodInitializing" if desired.spec.initContainers else "ContainerCreating", None


def terminated(a: Attempt) -> ContainerStateTerminated:
    return ContainerStateTerminated(
        exitCode=a.code,
        reason=_why_ended(a),
        message=a.message or None,
        startedAt=rfc3339(a.started if a.started is not None else a.made),
        finishedAt=rfc3339(a.finished if a.finished is not None else a.made),
        containerID=f"pyrun://{a.id}",
    )


def _why_ended(a: Attempt) -> str:
    if a.stop is not None and a.stop.why == RESTARTING_ALL and a.code != 0:
        return RESTARTING_ALL
    return a.reason or ("Completed" if a.code == 0 else "Error")
