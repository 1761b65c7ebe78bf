"""Readings as the kubelet's /stats/summary (k8s.io/kubelet, stats/v1alpha1), as metrics-server reads it. Pure."""

from __future__ import annotations

import time
from typing import Any

from .families import start_times
from .node import SECOND

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .node import NodeUsage
    from .readings import Readings


def plan_summary(name: str, readings: Readings, cores: int | None) -> dict[str, Any]:
    """cores: the node's use of CPU as nanoseconds a second, None where it is not known yet. What is not known is left
    out."""
    started = start_times(readings)
    return {"node": _node(name, readings.node, cores), "pods": [_pod(one, started) for one in readings.stats]}


def plan_rate(before: NodeUsage, now: NodeUsage) -> int | None:
    """Nanoseconds of CPU a second between two readings; None where no time lies between them."""
    passed = now.time - before.time
    return None if passed <= 0 else max(0, now.cpu - before.cpu) * SECOND // passed


def plan_traffic(before: NodeUsage, now: NodeUsage) -> tuple[int, int] | None:
    """Bytes received and sent a second; None where they are not known, or no time lies between."""
    passed = now.time - before.time
    if passed <= 0 or before.received is None or before.sent is None or now.received is None or now.sent is None:
        return None
    grown = (now.received - before.received, now.sent - before.sent)
    # An interface that has come, gone or begun anew has not carried that.
    return (grown[0] * SECOND // passed, grown[1] * SECOND // passed) if min(grown) >= 0 else None


def _node(name: str, node: NodeUsage, cores: int | None) -> dict[str, Any]:
    at = _time(node.time)
    cpu = {"time": at, "usageCoreNanoSeconds": node.cpu}
    if cores is not None:
        cpu["usageNanoCores"] = cores
    memory = {
        "time": at,
        "availableBytes": node.available,
        "usageBytes": node.used,
        "workingSetBytes": node.working,
        "rssBytes": node.rss,
        "pageFaults": node.page_faults,
        "majorPageFaults": node.major_page_faults,
    }
    return {"nodeName": name, "startTime": _time(node.started), "cpu": cpu, "memory": memory}


def _pod(stats: Any, started: dict[tuple[str, ...], int]) -> dict[str, Any]:
    about = stats.attributes.metadata
    linux = stats.linux
    made: dict[str, Any] = {"podRef": {"name": about.name, "namespace": about.namespace, "uid": about.uid}}
    _set_start(made, started.get(("", about.namespace, about.name)))
    made["containers"] = [_container(one, about, started) for one in linux.containers]
    _set_usage(made, linux)
    if linux.HasField("network"):
        made["network"] = _network(linux.network)
    if linux.HasField("process"):
        made["process_stats"] = {"process_count": linux.process.process_count.value}
    return made


def _container(stats: Any, pod: Any, started: dict[tuple[str, ...], int]) -> dict[str, Any]:
    name = stats.attributes.metadata.name
    made: dict[str, Any] = {"name": name}
    _set_start(made, started.get((name, pod.namespace, pod.name)))
    _set_usage(made, stats)
    if stats.HasField("swap"):
        fields = {"swap_available_bytes": "swapAvailableBytes", "swap_usage_bytes": "swapUsageBytes"}
        made["swap"] = _timed(stats.swap, fields)
    if stats.HasField("writable_layer"):
        made["rootfs"] = _timed(stats.writable_layer, {"used_bytes": "usedBytes", "inodes_used": "inodesUsed"})
    return made


def _set_start(made: dict[str, Any], seconds: int | None) -> None:
    if seconds is not None:
        made["startTime"] = _time(seconds * SECOND)


def _set_usage(made: dict[str, Any], stats: Any) -> None:
    if stats.HasField("cpu"):
        fields = {"usage_nano_cores": "usageNanoCores", "usage_core_nano_seconds": "usageCoreNanoSeconds"}
        made["cpu"] = _timed(stats.cpu, fields)
    if stats.HasField("memory"):
        made["memory"] = _timed(
            stats.memory,
            {
                "available_bytes": "availableBytes",
                "usage_bytes": "usageBytes",
                "working_set_bytes": "workingSetBytes",
                "rss_bytes": "rssBytes",
                "page_faults": "pageFaults",
                "major_page_faults": "majorPageFaults",
            },
        )


def _timed(usage: Any, fields: dict[str, str]) -> dict[str, Any]:
    known = {called: getattr(usage, name).value for name, called in fields.items() if usage.HasField(name)}
    return {"time": _time(usage.timestamp), **known}


def _network(usage: Any) -> dict[str, Any]:
    made = {"time": _time(usage.timestamp)}
    if usage.HasField("default_interface"):
        made |= _interface(usage.default_interface)
    return {**made, "interfaces": [_interface(one) for one in (usage.default_interface, *usage.interfaces) if one.name]}


def _interface(one: Any) -> dict[str, Any]:
    fields = {"rx_bytes": "rxBytes", "rx_errors": "rxErrors", "tx_bytes": "txBytes", "tx_errors": "txErrors"}
    return {
        "name": one.name,
        **{called: getattr(one, name).value for name, called in fields.items() if one.HasField(name)},
    }


def _time(nanoseconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(nanoseconds // SECOND))
