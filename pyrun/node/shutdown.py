"""PURE: in which order pods end when the node shuts down, and how long each may take.

Source: kubernetes pkg/kubelet/nodeshutdown (nodeshutdown_manager.go): what the system needs ends last, and has the last
part of the time for itself; reasons and messages are a kubelet's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .eviction.plan import CRITICAL

REASON = "Terminated"
MESSAGE = "Pod was terminated in response to imminent node shutdown."
REFUSAL = ("NodeShutdown", "Pod was rejected as the node is shutting down.")


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Seconds. grace: for all pods; critical: the last part of it, for pods that the system needs. on_term: a SIGTERM
    is the node's end, and not only the agent's."""

    grace: float = 0.0
    critical: float = 0.0
    on_term: bool = False


@dataclass(frozen=True, slots=True)
class Ending:
    """A pod that is to end. grace: its own, in seconds."""

    name: str
    priority: int
    grace: float


@dataclass(frozen=True, slots=True)
class Group:
    """Pods that end side by side, each within its seconds. seconds: after which the next group's turn comes anyhow."""

    seconds: float
    pods: tuple[tuple[str, float], ...]


def plan_shutdown(pods: Iterable[Ending], settings: Shutdown) -> list[Group]:
    """The first is to end first. A group without pods takes no time."""
    found = sorted(pods, key=lambda pod: pod.name)
    groups = []
    for seconds, critical in ((settings.grace - settings.critical, False), (settings.critical, True)):
        own = [pod for pod in found if (pod.priority >= CRITICAL) == critical]
        if own:
            groups.append(Group(seconds, tuple((pod.name, min(pod.grace, seconds)) for pod in own)))
    return groups
