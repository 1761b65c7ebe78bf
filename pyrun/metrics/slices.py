"""What lies above pods among the cgroups: the root, which is the node, systemd's slices, and those that a kubelet has
its pods in, by their paths as cAdvisor has them. Pods and containers are not looked for here: the runtime tells of
them."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ..cri.metrics import of_cgroup
from ..facts import cgroup2_mount, read_text
from ..pod.stats.cgroup import Reading, read_cgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..cri.metrics import Sample as Whole
    from .node import NodeUsage

    Sample = tuple[str, tuple[str, ...], int | float | None]

MOST = 256
PODS = ("kubepods", "kubepods.slice")
QOS = ("burstable", "besteffort", "kubepods-burstable.slice", "kubepods-besteffort.slice")


@dataclass(frozen=True, slots=True)
class Slice:
    """id: the cgroup's path, "/" for the root."""

    id: str
    reading: Reading


def collect_slices(mount: str | None = None) -> tuple[Slice, ...]:
    """mount: where cgroup2 is mounted; None: as /proc says. Nothing where it is not. MOST of them."""
    mount = mount or cgroup2_mount(read_text("/proc/self/mountinfo", 8 << 20))
    if mount is None:
        return ()
    found, ids = [], ["/"]
    for id in ids:
        reading = read_cgroup(mount + id, rare=True)
        if reading is not None:
            found.append(Slice(id, reading))
            ids += [f"{id.rstrip('/')}/{name}" for name in _below(mount, id)][: MOST - len(ids)]
    return tuple(found)


def _below(mount: str, id: str) -> list[str]:
    above = id.rpartition("/")[2]
    if above in QOS:
        return []
    try:
        names = sorted(os.listdir(mount + id))
    except OSError:
        return []
    if above in PODS:
        return [name for name in names if name in QOS]
    return [name for name in names if name.endswith(".slice") or name in PODS]


def samples_of(one: Slice, node: NodeUsage) -> Iterator[Sample]:
    """The root's cgroup has not all that there is of the node: that is /proc's."""
    whole: Iterator[Whole] = of_cgroup(one.reading, None)
    yield from whole
    yield "container_last_seen", (), node.time // 1_000_000_000
    for name, key in (("usage", "usage_usec"), ("user", "user_usec"), ("system", "system_usec")):
        if key in one.reading.cpu:  # with the fractions of seconds
            of = ("total",) if name == "usage" else ()
            yield f"container_cpu_{name}_seconds_total", of, one.reading.cpu[key] / 1e6
    if one.id == "/":
        yield "container_cpu_usage_seconds_total", ("total",), node.cpu / 1e9
        yield "container_memory_usage_bytes", (), node.used
        yield "container_memory_working_set_bytes", (), node.working
        yield "container_memory_rss", (), node.rss
        yield "container_memory_swap", (), node.swap
        yield "container_start_time_seconds", (), node.started // 1_000_000_000
