"""What a plan of a pod asks for. `key` names what an action is about: one that is busy is not asked for again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...kube.objects.containers import ResourceRequirements
from .observed import BackOff, CgroupLimits, Stop


@dataclass(frozen=True, slots=True)
class Admit:
    """Find out whether the pod fits, and remember it: a pod that runs is never asked again."""

    @property
    def key(self) -> tuple[str, ...]:
        return ("admit",)

    def __str__(self) -> str:
        return "admit"


@dataclass(frozen=True, slots=True)
class RunSandbox:
    attempt: int

    @property
    def key(self) -> tuple[str, ...]:
        return ("sandbox",)

    def __str__(self) -> str:
        return f"run sandbox {self.attempt}"


@dataclass(frozen=True, slots=True)
class StopSandbox:
    id: str

    @property
    def key(self) -> tuple[str, ...]:
        return ("sandbox",)

    def __str__(self) -> str:
        return "stop sandbox"


@dataclass(frozen=True, slots=True)
class Pull:
    """back_off: what to remember if it fails."""

    image: str
    back_off: BackOff

    @property
    def key(self) -> tuple[str, ...]:
        return ("pull", self.image)

    def __str__(self) -> str:
        return f"pull {self.image}"


@dataclass(frozen=True, slots=True)
class Run:
    """Make a container and start it. back_off: what to remember of this start; None for a first one."""

    name: str
    attempt: int
    back_off: BackOff | None = None

    @property
    def key(self) -> tuple[str, ...]:
        return ("run", self.name)

    def __str__(self) -> str:
        return f"run {self.name} {self.attempt}"


@dataclass(frozen=True, slots=True)
class RunHook:
    """which: postStart or preStop. deadline: when to give it up."""

    id: str
    name: str
    which: str
    deadline: float | None = None

    @property
    def key(self) -> tuple[str, ...]:
        return (self.which, self.id)

    def __str__(self) -> str:
        return f"{self.which} {self.name}"


@dataclass(frozen=True, slots=True)
class BeginStop:
    """Remember that the container is to end, and until when; nothing is done to it yet."""

    id: str
    name: str
    stop: Stop

    @property
    def key(self) -> tuple[str, ...]:
        return ("stop", self.id)

    def __str__(self) -> str:
        return f"stop {self.name}: {self.stop.why}"


@dataclass(frozen=True, slots=True)
class Signal:
    """The container's stop signal to its first process; at kill_at the planner asks for Kill."""

    id: str
    name: str

    @property
    def key(self) -> tuple[str, ...]:
        return ("signal", self.id)

    def __str__(self) -> str:
        return f"signal {self.name}"


@dataclass(frozen=True, slots=True)
class Kill:
    """All processes of the container, now."""

    id: str
    name: str

    @property
    def key(self) -> tuple[str, ...]:
        return ("kill", self.id)

    def __str__(self) -> str:
        return f"kill {self.name}"


@dataclass(frozen=True, slots=True)
class RunProbe:
    id: str
    name: str
    kind: str

    @property
    def key(self) -> tuple[str, ...]:
        return ("probe", self.id, self.kind)

    def __str__(self) -> str:
        return f"probe {self.name} {self.kind}"


@dataclass(frozen=True, slots=True)
class Allocate:
    """Find out whether the node gives the pod what is asked now, and remember it."""

    @property
    def key(self) -> tuple[str, ...]:
        return ("allocate",)

    def __str__(self) -> str:
        return "allocate"


@dataclass(frozen=True, slots=True)
class Write:
    """Other limits for the pod's cgroup (limits) or a container's (id, and resources: all that it has then).

    resource: memory or cpu. above: what must not be used already, in bytes of memory; 0 where it grows.
    """

    name: str
    resource: str
    above: int = 0
    limits: CgroupLimits | None = None
    id: str = ""
    resources: ResourceRequirements | None = None


@dataclass(frozen=True, slots=True)
class Resize:
    """One after the other, up to the first that fails."""

    writes: tuple[Write, ...]

    @property
    def key(self) -> tuple[str, ...]:
        return ("resize",)

    def __str__(self) -> str:
        return "resize " + ", ".join(f"{write.name} {write.resource}" for write in self.writes)


@dataclass(frozen=True, slots=True)
class Remove:
    """A container that ended and that nobody needs for its status or its log."""

    id: str
    name: str
    attempt: int

    @property
    def key(self) -> tuple[str, ...]:
        return ("remove", self.id)

    def __str__(self) -> str:
        return f"remove {self.name} {self.attempt}"


@dataclass(frozen=True, slots=True)
class RestartAll:
    """Remember that all containers up to these attempts, by name, are to end, and all begin anew. why: who asked."""

    past: Mapping[str, int]
    why: str

    @property
    def key(self) -> tuple[str, ...]:
        return ("restart all",)

    def __str__(self) -> str:
        return f"restart all: {self.why}"


@dataclass(frozen=True, slots=True)
class Fail:
    """The pod will not run again: its phase is Failed, whatever its containers say."""

    reason: str
    message: str

    @property
    def key(self) -> tuple[str, ...]:
        return ("fail",)

    def __str__(self) -> str:
        return f"fail {self.reason}"


@dataclass(frozen=True, slots=True)
class Later:
    """A probe that comes next at that time, and needs no other plan for it."""

    at: float
    probe: RunProbe


@dataclass(frozen=True, slots=True)
class Forget:
    """All of a deleted pod has ended: remove its sandbox, volumes and records."""

    @property
    def key(self) -> tuple[str, ...]:
        return ("forget",)

    def __str__(self) -> str:
        return "forget"


Action = (
    Admit
    | RunSandbox
    | StopSandbox
    | Pull
    | Run
    | RunHook
    | BeginStop
    | Signal
    | Kill
    | RunProbe
    | Allocate
    | Resize
    | Remove
    | RestartAll
    | Fail
    | Forget
)
