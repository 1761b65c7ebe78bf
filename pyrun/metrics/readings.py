"""What a CRI runtime said at one moment, with the node's own figures: what all the forms are made of."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from .. import cri_api as v1
from ..errors import PyrunError
from ..rpc.client import call_all
from .durations import STATUS, plan_durations
from .node import NodeUsage, collect_node
from .text import Family, Histogram

PATIENCE_S = 10.0
_RPCS = v1.SERVICES["RuntimeService"]


@dataclass(frozen=True, slots=True)
class Readings:
    """descriptors, metrics, stats: the CRI's MetricDescriptor, PodSandboxMetrics and PodSandboxStats."""

    node: NodeUsage
    descriptors: tuple[Any, ...]
    metrics: tuple[Any, ...]
    stats: tuple[Any, ...]


def collect_durations(path: str) -> list[Family | Histogram]:
    """How long the runtime's calls took, where it is ours; nothing of another, or of one that is away."""
    try:
        [status] = call_all(path, [(_RPCS["Status"], v1.StatusRequest(verbose=True))], PATIENCE_S)
        return plan_durations(json.loads(status.info[STATUS])) if STATUS in status.info else []
    except (PyrunError, KeyError, TypeError, ValueError):
        return []


def collect_readings(path: str) -> Readings:
    """Asks who serves the CRI at this socket. Unavailable where nobody answers."""
    descriptors, metrics, stats = call_all(
        path,
        [
            (_RPCS["ListMetricDescriptors"], v1.ListMetricDescriptorsRequest()),
            (_RPCS["ListPodSandboxMetrics"], v1.ListPodSandboxMetricsRequest()),
            (_RPCS["ListPodSandboxStats"], v1.ListPodSandboxStatsRequest()),
        ],
        PATIENCE_S,
    )
    return Readings(collect_node(), tuple(descriptors.descriptors), tuple(metrics.pod_metrics), tuple(stats.stats))
