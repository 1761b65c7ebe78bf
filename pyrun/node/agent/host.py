"""What all actors of a node share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from ...cri.cri import Cri
from ...errors import Unavailable
from ...kube.objects.status import PodStatus
from ..admission import Allocatable
from ..plan.observed import NodeFacts
from ..probes import Prober
from ..volumes import Objects, Volumes
from .events import Event, Subject
from .pulled import Pulled
from .record import Record, Records
from .sandbox_config import Dns


class EventTold(Protocol):
    def __call__(self, subject: Subject, event: Event, *, api: bool) -> None: ...


def _no_one(subject: Subject, event: Event, *, api: bool) -> None:
    pass


async def _no_objects(record: Record) -> Objects:
    raise Unavailable("there is no API server to ask for what the pod refers to")


@dataclass(slots=True)
class Host:
    """directory: below which a pod has its files, ROOT/node/pods/UID. logs: the directory of all pods' logs. started:
    when the agent was. systemd: that makes the cgroups.

    refusal: asked once for each pod; (reason, message) where it is not taken. resize_refusal: the same of what a pod
    asks now. gone: told when nothing is left of a pod; room: when it needs less. burstable: thousandths of a processor
    that all Burstable pods request. ids: what pods have of the node's users for their own.

    planned: after each plan of a pod. told: its status then. event: one that has come, or come again; api: an API
    server may have it. objects: what files refer to; served: what a pod of an API server refers to, or PyrunError while
    that is not known.
    """

    cri: Cri
    records: Records
    facts: NodeFacts
    allocatable: Allocatable
    dns: Dns
    directory: str
    logs: str
    warn: Callable[[str], None]
    prober: Prober
    volumes: Volumes
    pulled: Pulled
    started: float
    systemd: bool = False
    objects: Objects = field(default_factory=Objects)
    refusal: Callable[[Record], tuple[str, str] | None] = lambda record: None
    resize_refusal: Callable[[Record], tuple[str, str] | None] = lambda record: None
    gone: Callable[[Record], None] = lambda record: None
    room: Callable[[], None] = lambda: None
    burstable: Callable[[], int] = lambda: 0
    ids: Callable[[], Iterable[range]] = lambda: ()
    planned: Callable[[], None] = lambda: None
    told: Callable[[Record, PodStatus], None] = lambda record, status: None
    event: EventTold = _no_one
    served: Callable[[Record], Awaitable[Objects]] = _no_objects

    @property
    def memory(self) -> int:
        return self.allocatable.memory
