"""What every RPC is called with."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..facts import Facts
from ..image.store import Images
from ..pod.network import Network
from ..pod.pods import Pods
from ..pod.stats import Counters
from ..rpc.durations import Durations
from .config import Configuration
from .events import Events
from .stream.server import Streams


@dataclass(slots=True)
class Cri:
    """The daemon's parts. notes: what a person should know of it, for Status. ended_by: the signal that has."""

    pods: Pods
    images: Images
    network: Network
    events: Events
    streams: Streams
    configuration: Configuration
    facts: Facts
    root: str
    state: str
    notes: list[str]
    counters: Counters = field(default_factory=Counters)
    durations: Durations = field(default_factory=Durations)
    ended_by: int = 0
