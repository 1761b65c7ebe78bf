"""What is wanted of a pod, and what is there of it: all that the planner looks at, and all that an agent keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ...kube.objects.containers import Container, EphemeralContainer, ResourceRequirements
from ...kube.objects.pods import Pod, PodSpec
from ...kube.objects.status import LinuxContainerUser

AnyContainer = Container | EphemeralContainer

# Probes' kinds, in the order in which they are told.
STARTUP, LIVENESS, READINESS = "startup", "liveness", "readiness"
KINDS = (STARTUP, LIVENESS, READINESS)


@dataclass(frozen=True, slots=True)
class Desired:
    """A pod with its defaults. deleted: when it was asked to go; grace: seconds from then, the request's or the spec's.

    retried: when a person asked to try again now (`pyrun node retry`): back-offs from before it are over.
    asked: the pod with the resources that it should have, where they are others than the node has given it, which are
    those of `pod`.
    """

    pod: Pod
    uid: str
    created: float
    deleted: float | None = None
    grace: int = 30
    retried: float = 0.0
    asked: Pod | None = None

    @property
    def spec(self) -> PodSpec:
        assert self.pod.spec is not None
        return self.pod.spec

    @property
    def name(self) -> str:
        """NAMESPACE/NAME."""
        assert self.pod.metadata is not None
        return f"{self.pod.metadata.namespace}/{self.pod.metadata.name}"


@dataclass(frozen=True, slots=True)
class Hook:
    """A postStart or preStop. error: empty where it did its work."""

    begun: float
    ended: float | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Stop:
    """A container that is being ended. deadline: of preStop and of the program together."""

    why: str
    begun: float
    deadline: float
    signalled: float | None = None
    killed: float | None = None

    def shifted(self, seconds: float) -> Stop:
        """The same by a clock that was set meanwhile."""
        signalled = None if self.signalled is None else self.signalled + seconds
        killed = None if self.killed is None else self.killed + seconds
        return Stop(self.why, self.begun + seconds, self.deadline + seconds, signalled, killed)


@dataclass(frozen=True, slots=True)
class CgroupLimits:
    """shares: of cgroup v1, 2 to 262144. quota: µs in 100 ms, 0 for no limit. memory: bytes, or None for no limit."""

    shares: int
    quota: int
    memory: int | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One container of the runtime. attempt counts from 0 for each name. asked: the image that the pod named then.
    resources: what it has of the node now, None where that is not known. user: its first process'.

    started is None for one that was made and does not run yet; finished is None until it has ended.
    reason: Completed, Error, OOMKilled, StartError, ContainerStatusUnknown; empty: by its code.
    """

    id: str
    name: str
    attempt: int
    made: float
    asked: str
    started: float | None = None
    finished: float | None = None
    code: int = 0
    reason: str = ""
    message: str = ""
    image: str = ""
    post_start: Hook | None = None
    pre_stop: Hook | None = None
    stop: Stop | None = None
    resources: ResourceRequirements | None = None
    user: LinuxContainerUser | None = None

    @property
    def running(self) -> bool:
        return self.started is not None and self.finished is None

    @property
    def ended(self) -> bool:
        return self.finished is not None

    @property
    def succeeded(self) -> bool:
        return self.finished is not None and self.code == 0


@dataclass(frozen=True, slots=True)
class BackOff:
    """seconds: how long the next try waits, counted from what failed last. updated: when that was decided.

    failed: of a pull or a creation, when it failed last and what it said.
    """

    seconds: float
    updated: float
    failed: float = 0.0
    error: str = ""


@dataclass(frozen=True, slots=True)
class ProbeState:
    """Of one probe of one container. good, bad: results in a row; last: when the last one began.

    verdict: what the thresholds make of them, None before they were reached the first time.
    """

    good: int = 0
    bad: int = 0
    last: float | None = None
    verdict: bool | None = None
    output: str = ""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """ready: it runs. addresses: the pod's, none with hostNetwork."""

    id: str
    attempt: int
    made: float
    ready: bool = True
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Observed:
    """admitted: None before it was asked. failure: (reason, message) of a pod that will never run again.

    end_grace: seconds to end for who has failed, None for the pod's own. disrupted: the reason of a DisruptionTarget.
    attempts: the containers that are known, oldest first. images: image reference → id, of those that are here.
    pulls, creations: what failed, by image reference, and by container. restarts: back-off by container's name.
    probes: by (container id, kind). busy: keys of actions that are under way. conditions: readiness gates by type.
    all_restarted: by container's name, the attempt up to which all ended with a restart of all containers (KEP-5532).
    given: what the pod's cgroup has, None before it was made. pending: (reason, message) of why the node does not give
    the resources that are asked, None before it was tried. resize_error: why giving them failed.
    """

    admitted: bool | None = None
    failure: tuple[str, str] | None = None
    end_grace: float | None = None
    disrupted: str = ""
    started: float | None = None
    sandbox: Sandbox | None = None
    sandbox_error: BackOff | None = None
    attempts: tuple[Attempt, ...] = ()
    images: Mapping[str, str] = field(default_factory=dict)
    pulls: Mapping[str, BackOff] = field(default_factory=dict)
    creations: Mapping[str, BackOff] = field(default_factory=dict)
    restarts: Mapping[str, BackOff] = field(default_factory=dict)
    probes: Mapping[tuple[str, str], ProbeState] = field(default_factory=dict)
    conditions: Mapping[str, bool] = field(default_factory=dict)
    busy: frozenset[tuple[str, ...]] = frozenset()
    all_restarted: Mapping[str, int] = field(default_factory=dict)
    given: CgroupLimits | None = None
    pending: tuple[str, str] | None = None
    resize_error: BackOff | None = None

    def last(self, name: str) -> Attempt | None:
        """The newest container of a name."""
        return next((a for a in reversed(self.attempts) if a.name == name), None)

    def before(self, name: str) -> Attempt | None:
        """The newest one that ended before the newest."""
        found = [a for a in self.attempts if a.name == name]
        return next((a for a in reversed(found[:-1]) if a.ended), None)


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """name, addresses: the node's. longest_back_off: crashLoopBackOff.maxContainerRestartPeriod, 1 s to 300 s.
    parallel_pulls: of one pod at a time."""

    name: str = "node"
    addresses: tuple[str, ...] = ()
    longest_back_off: float = 300.0
    parallel_pulls: int = 3
