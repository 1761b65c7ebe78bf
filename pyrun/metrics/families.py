"""Readings as families of samples: /metrics/cadvisor and /metrics/resource, by the kubelet's names and labels. Pure."""

from __future__ import annotations

from typing import Any

from .. import cri_api as v1
from ..cri.metrics import DESCRIPTORS
from .slices import samples_of
from .text import COUNTER, GAUGE, Family

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .readings import Readings
    from .slices import Slice

SECOND = 1e9
# Those of each metric of a container; a metric's own come after them.
LABELS = ("container", "id", "image", "name", "namespace", "pod")
CPU = "container_cpu_usage_seconds_total"
_STARTED = "container_start_time_seconds"


def plan_cadvisor(readings: Readings, slices: Iterable[Slice] = ()) -> list[Family]:
    """All that the runtime's metrics say, and the same of slices, which lie above pods. One that the runtime has not
    described, or whose labels are not those of its description, is left out. A description has no type; a sample of
    the runtime's has one."""
    families = {one.name: Family(one.name, one.help, COUNTER, tuple(one.label_keys)) for one in readings.descriptors}
    families = {name: family for name, family in families.items() if family.is_valid()}
    for pod in readings.metrics:
        for group in (pod, *pod.container_metrics):
            for metric in group.metrics:
                _add(families, metric)
    if (cpu := families.get(CPU)) is not None:
        _refine(cpu, readings)
    for one in slices:
        for name, more, value in samples_of(one, readings.node):
            family = families.get(name)
            if family is not None and value is not None and family.labels[: len(LABELS)] == LABELS:
                if not family.values:
                    family.type = _type(DESCRIPTORS[name].type)
                family.values["", one.id, "", "", "", "", *more] = value
    return list(families.values())


def _add(families: dict[str, Family], metric: Any) -> None:
    family = families.get(metric.name)
    if family is None or len(metric.label_values) != len(family.labels):
        return
    family.type = _type(metric.metric_type)
    family.values[tuple(metric.label_values)] = metric.value.value


def _type(of: int) -> str:
    return COUNTER if of == v1.COUNTER else GAUGE


def _refine(cpu: Family, readings: Readings) -> None:
    """Takes the nanoseconds of the statistics in place of whole seconds."""
    at = {label: place for place, label in enumerate(cpu.labels)}
    if not {"namespace", "pod", "container"} <= at.keys():
        return
    finer = {}
    for pod in readings.stats:
        about = pod.attributes.metadata
        finer[about.namespace, about.name, ""] = pod.linux.cpu
        for one in pod.linux.containers:
            finer[about.namespace, about.name, one.attributes.metadata.name] = one.cpu
    for labels in cpu.values:
        usage = finer.get((labels[at["namespace"]], labels[at["pod"]], labels[at["container"]]))
        # Never less than what was said in seconds: the statistics are of a moment later.
        if usage is not None and usage.usage_core_nano_seconds.value >= cpu.values[labels] * SECOND:
            cpu.values[labels] = usage.usage_core_nano_seconds.value / SECOND


def plan_resource(readings: Readings) -> list[Family]:
    """What metrics-server and autoscalers need (the kubelet's /metrics/resource)."""
    container, pod = ("container", "namespace", "pod"), ("namespace", "pod")
    cpu, memory = "Cumulative CPU time in seconds", "Working set in bytes"
    families = [
        Family("node_cpu_usage_seconds_total", f"{cpu} of the node", COUNTER),
        Family("node_memory_working_set_bytes", f"{memory} of the node", GAUGE),
        Family("node_swap_usage_bytes", "Swap in use on the node, in bytes", GAUGE),
        Family(CPU, f"{cpu} of the container", COUNTER, container),
        Family("container_memory_working_set_bytes", f"{memory} of the container", GAUGE, container),
        Family("container_swap_usage_bytes", "Swap that the container uses, in bytes", GAUGE, container),
        Family("pod_cpu_usage_seconds_total", f"{cpu} of the pod", COUNTER, pod),
        Family("pod_memory_working_set_bytes", f"{memory} of the pod", GAUGE, pod),
        Family(_STARTED, "When the container was started, in seconds since 1970", GAUGE, container),
        Family("resource_scrape_error", "1 if what is here could not all be read", GAUGE),
    ]
    named = {family.name: family.values for family in families}
    node = readings.node
    named["node_cpu_usage_seconds_total"][()] = node.cpu / SECOND
    named["node_memory_working_set_bytes"][()] = node.working
    named["node_swap_usage_bytes"][()] = node.swap
    named["resource_scrape_error"][()] = 0
    for one in readings.stats:
        about = one.attributes.metadata
        of_pod = (about.namespace, about.name)
        _put(named["pod_cpu_usage_seconds_total"], of_pod, one.linux.cpu, "usage_core_nano_seconds", SECOND)
        _put(named["pod_memory_working_set_bytes"], of_pod, one.linux.memory, "working_set_bytes")
        for c in one.linux.containers:
            of_container = (c.attributes.metadata.name, *of_pod)
            _put(named[CPU], of_container, c.cpu, "usage_core_nano_seconds", SECOND)
            _put(named["container_memory_working_set_bytes"], of_container, c.memory, "working_set_bytes")
            _put(named["container_swap_usage_bytes"], of_container, c.swap, "swap_usage_bytes")
    for labels, started in start_times(readings).items():
        named[_STARTED][labels] = started
    return families


def _put(
    values: dict[tuple[str, ...], int | float], labels: tuple[str, ...], usage: Any, name: str, unit: float = 0
) -> None:
    """Nothing where the runtime does not know."""
    if usage.HasField(name):
        found = getattr(usage, name).value
        values[labels] = found / unit if unit else found


def start_times(readings: Readings) -> dict[tuple[str, ...], int]:
    """(container, namespace, pod) → seconds since 1970. A pod's has the container ""."""
    keys = next((tuple(one.label_keys) for one in readings.descriptors if one.name == _STARTED), ())
    found: dict[tuple[str, ...], int] = {}
    for pod in readings.metrics:
        for group in (pod, *pod.container_metrics):
            for metric in group.metrics:
                if metric.name == _STARTED and len(metric.label_values) == len(keys):
                    labels = dict(zip(keys, metric.label_values, strict=True))
                    key = tuple(labels.get(name, "") for name in ("container", "namespace", "pod"))
                    found[key] = metric.value.value
    return found
