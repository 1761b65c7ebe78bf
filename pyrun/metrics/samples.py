"""What of a reading is kept, and what is made of it when it is asked for. Pure.

Names are the kubelet's and cAdvisor's. Values are whole numbers: seconds are kept as microseconds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from .block import SECOND
from .readings import Readings

MICROSECONDS = "_seconds_total"
COUNTERS = "_total"


class Series(NamedTuple):
    """pod, container: "" for what is the node's or the pod's."""

    name: str
    namespace: str = ""
    pod: str = ""
    uid: str = ""
    container: str = ""


def plan_samples(readings: Readings) -> dict[Series, int]:
    node = readings.node
    found = {
        Series("node_cpu_usage_seconds_total"): node.cpu // 1000,
        Series("node_memory_working_set_bytes"): node.working,
    }
    if node.received is not None and node.sent is not None:
        found[Series("node_network_receive_bytes_total")] = node.received
        found[Series("node_network_transmit_bytes_total")] = node.sent
    for one in readings.stats:
        about = one.attributes.metadata
        own = (about.namespace, about.name, about.uid)
        interface = one.linux.network.default_interface
        found |= _put("pod_cpu_usage_seconds_total", own, one.linux.cpu, "usage_core_nano_seconds", 1000)
        found |= _put("pod_memory_working_set_bytes", own, one.linux.memory, "working_set_bytes")
        found |= _put("pod_network_receive_bytes_total", own, interface, "rx_bytes")
        found |= _put("pod_network_transmit_bytes_total", own, interface, "tx_bytes")
        for c in one.linux.containers:
            of = (*own, c.attributes.metadata.name)
            found |= _put("container_cpu_usage_seconds_total", of, c.cpu, "usage_core_nano_seconds", 1000)
            found |= _put("container_memory_working_set_bytes", of, c.memory, "working_set_bytes")
            found |= _put("container_fs_usage_bytes", of, c.writable_layer, "used_bytes")
    return found


def _put(name: str, of: tuple[str, ...], usage: Any, field: str, unit: int = 1) -> dict[Series, int]:
    """Nothing where the runtime does not know, or says what can't be."""
    if not usage.HasField(field):
        return {}
    value = getattr(usage, field).value // unit
    return {Series(name, *of): value} if value < 1 << 62 else {}


def plan_points(
    name: str, times: Sequence[int], values: Sequence[int], since: int, until: int, step: int
) -> list[tuple[int, float]]:
    """(time, value) at most each `step`: of a counter its rate a second over the step, which a restart sets back to 0,
    of others the last value. Nothing where nothing was read. Times and step: hundredths of seconds."""
    unit = 1e-6 if name.endswith(MICROSECONDS) else 1.0
    made = (
        _rates(times, values, since, until, step)
        if name.endswith(COUNTERS)
        else _lasts(times, values, since, until, step)
    )
    return [(time, value * unit) for time, value in made]


def _lasts(
    times: Sequence[int], values: Sequence[int], since: int, until: int, step: int
) -> Iterator[tuple[int, float]]:
    wanted = [(time, value) for time, value in zip(times, values, strict=True) if since <= time <= until]
    for at, (time, value) in enumerate(wanted):
        if at + 1 == len(wanted) or wanted[at + 1][0] // step != time // step:
            yield time, float(value)


def _rates(
    times: Sequence[int], values: Sequence[int], since: int, until: int, step: int
) -> Iterator[tuple[int, float]]:
    """Over what lies between the last reading of a step and that of the step before. After a gap of more than four
    steps, or a minute, the rate is not known."""
    before: tuple[int, int] | None = None
    grown = 0
    last: int | None = None
    for at, (time, value) in enumerate(zip(times, values, strict=True)):
        if time > until:
            break
        if last is not None:
            grown += value - last if value >= last else value
        last = value
        ends = at + 1 == len(times) or times[at + 1] // step != time // step or times[at + 1] > until
        if not ends:
            continue
        if before is not None and time > before[0] and since <= time:
            if time - before[0] <= max(4 * step, 60 * SECOND):
                yield time, (grown - before[1]) * SECOND / (time - before[0])
        before = (time, grown)
