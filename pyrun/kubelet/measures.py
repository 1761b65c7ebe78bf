"""What the node's containers use, read in this process where `pyrun metrics` asks over the CRI; one reading at a time,
and for a second who comes gets the same."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from ..cri.cri import Cri
from ..cri.runtime.metrics import list_metric_descriptors, list_pod_sandbox_metrics
from ..cri.runtime.stats import list_pod_sandbox_stats
from ..metrics.exporter import FRESH
from ..metrics.families import plan_cadvisor, plan_resource
from ..metrics.node import NodeUsage, collect_node
from ..metrics.readings import Readings
from ..metrics.slices import collect_slices
from ..metrics.summary import plan_rate, plan_summary
from ..metrics.text import COUNTER, GAUGE, Family, Histogram, render
from ..node.agent.agent import Agent
from ..node.probes import Took


class Measures:
    def __init__(self, cri: Cri, name: str) -> None:
        self._cri, self._name = cri, name
        self._lock = asyncio.Lock()
        self._before: NodeUsage = collect_node()
        self._cores: int | None = None
        self._found: tuple[float, Readings] | None = None

    async def _readings(self) -> Readings:
        from .. import cri_api as v1

        async with self._lock:
            if self._found is not None and self._found[0] > time.monotonic():
                return self._found[1]
            descriptors = await list_metric_descriptors(self._cri, v1.ListMetricDescriptorsRequest())
            metrics = await list_pod_sandbox_metrics(self._cri, v1.ListPodSandboxMetricsRequest())
            stats = await list_pod_sandbox_stats(self._cri, v1.ListPodSandboxStatsRequest())
            node = await asyncio.to_thread(collect_node)
            found = Readings(node, tuple(descriptors.descriptors), tuple(metrics.pod_metrics), tuple(stats.stats))
            self._cores, self._before = plan_rate(self._before, node), node
            self._found = time.monotonic() + FRESH, found
            return found

    async def summary(self) -> dict[str, Any]:
        return plan_summary(self._name, await self._readings(), self._cores)

    async def cadvisor(self) -> str:
        slices = await asyncio.to_thread(collect_slices, self._cri.facts.cgroup_mount)
        return render(plan_cadvisor(await self._readings(), slices))

    async def resource(self) -> str:
        return render(plan_resource(await self._readings()))


def plan_own(agent: Agent, cpu: float, descriptors: int) -> list[Family]:
    """Of the agent itself, by the kubelet's names. cpu: seconds of its process."""
    pods = agent.host.cri.pods.pods.values()
    running = sum(c.alive for pod in pods for c in pod.containers.values() if c.visible)
    rows = (
        ("kubelet_running_pods", "Pods with a sandbox that is ready", GAUGE, sum(p.ready and p.visible for p in pods)),
        ("kubelet_desired_pods", "Pods that this node is to run", GAUGE, len(agent.actors)),
        ("process_cpu_seconds_total", "CPU time of the agent's process in seconds", COUNTER, cpu),
        ("process_open_fds", "Open file descriptors of the agent's process", GAUGE, descriptors),
    )
    made = [Family(name, text, kind, (), {(): value}) for name, text, kind, value in rows]
    containers = Family("kubelet_running_containers", "Containers", GAUGE, ("container_state",))
    containers.values["running",] = running
    name = Family("kubelet_node_name", "The node's name", GAUGE, ("node",))
    name.values[agent.name,] = 1
    return [*made, containers, name]


def plan_probes(agent: Agent) -> list[Family | Histogram]:
    """How often each probe has said what, and how long that took, since the agent began: a kubelet's names."""
    labels = ("container", "namespace", "pod", "pod_uid", "probe_type", "result")
    found = Family("prober_probe_total", "Results of probes", COUNTER, labels)
    for (namespace, pod), actor in agent.actors.items():
        for (container, kind, result), count in actor.carrier.probing.counts().items():
            found.values[container, namespace, pod, actor.record.uid, kind.capitalize(), result] = count
    text, bounds = "Duration in seconds for a probe response.", list(Took.BOUNDS)
    durations = Histogram(
        "prober_probe_duration_seconds", text, ("container", "namespace", "pod", "probe_type"), bounds
    )
    for (namespace, pod), actor in agent.actors.items():
        for (container, kind), took in actor.carrier.probing.durations().items():
            durations.values[container, namespace, pod, kind.capitalize()] = (took.counts, took.seconds)
    return [found, durations]
