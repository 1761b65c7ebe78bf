"""What all actors of a node share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ...cri.cri import Cri
from ..admission import Allocatable
from ..plan.observed import NodeFacts
from ..probes import Prober
from ..volumes import Objects, Volumes
from .record import Record, Records
from .sandbox_config import Dns


@dataclass(slots=True)
class Host:
    """directory: below which a pod has its files, ROOT/node/pods/UID. logs: the directory of all pods' logs. started:
    when the agent was. systemd: that makes the cgroups.

    refusal: asked once for each pod; (reason, message) where it is not taken. gone: told when nothing is left of a
    pod. burstable: thousandths of a processor that all Burstable pods request.
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
    started: float
    systemd: bool = False
    objects: Objects = field(default_factory=Objects)
    refusal: Callable[[Record], tuple[str, str] | None] = lambda record: None
    gone: Callable[[Record], None] = lambda record: None
    burstable: Callable[[], int] = lambda: 0

    @property
    def memory(self) -> int:
        return self.allocatable.memory
