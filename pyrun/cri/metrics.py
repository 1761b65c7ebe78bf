"""The metrics that a kubelet hands on at /metrics/cadvisor: their names, labels and meaning, and their values. Pure.

Names and the first labels are cAdvisor's, for which people's dashboards are made. A value is a whole number in the CRI,
so seconds are whole seconds. What the kernel does not give is left out. spec_* is what was asked for; 0: no limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from .. import cri_api as v1
from ..pod.stats import Interface, Reading, Written
from ..pod.stats.cgroup import Processes

LABELS = ("container", "id", "image", "name", "namespace", "pod")
Sample = tuple[str, tuple[str, ...], int | None]


class Descriptor(NamedTuple):
    help: str
    type: int = v1.COUNTER
    labels: tuple[str, ...] = ()  # after LABELS


_C, _G = v1.COUNTER, v1.GAUGE
_DEVICE, _INTERFACE = ("device",), ("interface",)
DESCRIPTORS = {
    "container_blkio_device_usage_total": Descriptor(
        "Bytes read from and written to a block device.", _C, ("device", "major", "minor", "operation")
    ),
    "container_cpu_cfs_periods_total": Descriptor("Periods of the CPU limit that have passed."),
    "container_cpu_cfs_throttled_periods_total": Descriptor("Periods in which it was held back by its CPU limit."),
    "container_cpu_cfs_throttled_seconds_total": Descriptor("Seconds for which it was held back by its CPU limit."),
    "container_cpu_system_seconds_total": Descriptor("Seconds of CPU in the kernel."),
    "container_cpu_usage_seconds_total": Descriptor("Seconds of CPU.", _C, ("cpu",)),
    "container_cpu_user_seconds_total": Descriptor("Seconds of CPU in user space."),
    "container_file_descriptors": Descriptor("Open file descriptors.", _G),
    "container_fs_inodes_free": Descriptor("Free inodes of the file system it writes to.", _G, _DEVICE),
    "container_fs_inodes_total": Descriptor("Inodes of the file system it writes to.", _G, _DEVICE),
    "container_fs_limit_bytes": Descriptor("Bytes that the file system has to which it writes.", _G, _DEVICE),
    "container_fs_reads_bytes_total": Descriptor("Bytes read from a device.", _C, _DEVICE),
    "container_fs_reads_total": Descriptor("Reads from a device.", _C, _DEVICE),
    "container_fs_usage_bytes": Descriptor("Bytes of what it has written that are there.", _G, _DEVICE),
    "container_fs_writes_bytes_total": Descriptor("Bytes written to a device.", _C, _DEVICE),
    "container_fs_writes_total": Descriptor("Writes to a device.", _C, _DEVICE),
    "container_hugetlb_usage_bytes": Descriptor("Bytes of huge pages in use.", _G, ("pagesize",)),
    "container_last_seen": Descriptor("When it was last seen, in seconds since 1970.", _G),
    "container_memory_cache": Descriptor("Bytes of the page cache.", _G),
    "container_memory_failcnt": Descriptor("How often its memory limit was hit."),
    "container_memory_failures_total": Descriptor("Page faults.", _C, ("failure_type", "scope")),
    "container_memory_kernel_usage": Descriptor("Bytes of the kernel's memory.", _G),
    "container_memory_mapped_file": Descriptor("Bytes of mapped files.", _G),
    "container_memory_max_usage_bytes": Descriptor("The most memory it ever had, in bytes.", _G),
    "container_memory_rss": Descriptor("Bytes of anonymous memory.", _G),
    "container_memory_swap": Descriptor("Bytes in swap.", _G),
    "container_memory_usage_bytes": Descriptor("Bytes of memory, the page cache included.", _G),
    "container_memory_working_set_bytes": Descriptor(
        "Bytes of memory without the page cache that nobody has used of late.", _G
    ),
    "container_network_receive_bytes_total": Descriptor("Bytes received.", _C, _INTERFACE),
    "container_network_receive_errors_total": Descriptor("Errors of receiving.", _C, _INTERFACE),
    "container_network_receive_packets_dropped_total": Descriptor("Received packets dropped.", _C, _INTERFACE),
    "container_network_receive_packets_total": Descriptor("Packets received.", _C, _INTERFACE),
    "container_network_transmit_bytes_total": Descriptor("Bytes sent.", _C, _INTERFACE),
    "container_network_transmit_errors_total": Descriptor("Errors of sending.", _C, _INTERFACE),
    "container_network_transmit_packets_dropped_total": Descriptor("Packets to be sent dropped.", _C, _INTERFACE),
    "container_network_transmit_packets_total": Descriptor("Packets sent.", _C, _INTERFACE),
    "container_oom_events_total": Descriptor("Processes killed as memory ran out."),
    "container_pressure_cpu_stalled_seconds_total": Descriptor("Seconds in which all waited for the CPU."),
    "container_pressure_cpu_waiting_seconds_total": Descriptor("Seconds in which some waited for the CPU."),
    "container_pressure_io_stalled_seconds_total": Descriptor("Seconds in which all waited for I/O."),
    "container_pressure_io_waiting_seconds_total": Descriptor("Seconds in which some waited for I/O."),
    "container_pressure_memory_stalled_seconds_total": Descriptor("Seconds in which all waited for memory."),
    "container_pressure_memory_waiting_seconds_total": Descriptor("Seconds in which some waited for memory."),
    "container_processes": Descriptor("Processes.", _G),
    "container_sockets": Descriptor("Open sockets.", _G),
    "container_spec_cpu_period": Descriptor("The period of its CPU limit, in microseconds.", _G),
    "container_spec_cpu_quota": Descriptor("Its CPU limit, in microseconds a period.", _G),
    "container_spec_cpu_shares": Descriptor("Its weight among those that want the CPU.", _G),
    "container_spec_memory_limit_bytes": Descriptor("Its memory limit; 0: none.", _G),
    "container_spec_memory_reservation_limit_bytes": Descriptor("Memory that is kept for it, memory.low.", _G),
    "container_spec_memory_swap_limit_bytes": Descriptor("Its limit of memory and swap together; 0: none.", _G),
    "container_start_time_seconds": Descriptor("When it was started, in seconds since 1970.", _G),
    "container_threads": Descriptor("Threads.", _G),
    "container_threads_max": Descriptor("How many threads it may have.", _G),
    "container_ulimits_soft": Descriptor("The soft limit of its first process.", _G, ("ulimit",)),
}


@dataclass(frozen=True, slots=True)
class Room:
    """The file system that a container writes to."""

    device: str
    bytes: int
    inodes: int
    inodes_free: int


def descriptors() -> list[Any]:
    return [
        v1.MetricDescriptor(name=name, help=one.help, label_keys=[*LABELS, *one.labels])
        for name, one in DESCRIPTORS.items()
    ]


def metrics(labels: tuple[str, ...], samples: Iterable[Sample]) -> list[Any]:
    """Those of the samples that are known. A timestamp is 0 as they were collected for this answer."""
    return [
        v1.Metric(
            name=name,
            metric_type=DESCRIPTORS[name].type,
            label_values=[*labels, *more],
            value=v1.UInt64Value(value=found),
        )
        for name, more, found in samples
        if found is not None
    ]


def of_cgroup(r: Reading, thread_limit: int | None) -> Iterator[Sample]:
    """thread_limit: the node's own, where the cgroup has none."""
    yield from _cpu(r)
    yield from _memory(r)
    for resource, lines in r.pressure.items():
        for line, word in (("full", "stalled"), ("some", "waiting")):
            if line in lines:
                yield f"container_pressure_{resource}_{word}_seconds_total", (), lines[line].total // 1_000_000
    if r.threads is not None:
        yield "container_threads_max", (), thread_limit if r.threads_max is None else r.threads_max
    for size, used in r.hugetlb.items():
        yield "container_hugetlb_usage_bytes", (size,), used
    for device, values in r.devices.items():
        major, _, minor = device.partition(":")
        for key, word, of in (("r", "reads", "Read"), ("w", "writes", "Write")):
            yield "container_blkio_device_usage_total", (device, major, minor, of), values.get(f"{key}bytes")
            yield f"container_fs_{word}_bytes_total", (device,), values.get(f"{key}bytes")
            yield f"container_fs_{word}_total", (device,), values.get(f"{key}ios")


def _seconds(microseconds: int | None) -> int | None:
    return None if microseconds is None else microseconds // 1_000_000


def _cpu(r: Reading) -> Iterator[Sample]:
    cpu = r.cpu
    yield "container_cpu_usage_seconds_total", ("total",), _seconds(cpu.get("usage_usec"))
    yield "container_cpu_user_seconds_total", (), _seconds(cpu.get("user_usec"))
    yield "container_cpu_system_seconds_total", (), _seconds(cpu.get("system_usec"))
    yield "container_cpu_cfs_periods_total", (), cpu.get("nr_periods")
    yield "container_cpu_cfs_throttled_periods_total", (), cpu.get("nr_throttled")
    yield "container_cpu_cfs_throttled_seconds_total", (), _seconds(cpu.get("throttled_usec"))


def _memory(r: Reading) -> Iterator[Sample]:
    of = r.memory
    yield "container_memory_usage_bytes", (), r.memory_current
    yield "container_memory_working_set_bytes", (), r.working_set
    yield "container_memory_max_usage_bytes", (), r.memory_peak
    yield "container_memory_swap", (), r.swap_current
    yield "container_memory_rss", (), of.get("anon")
    yield "container_memory_cache", (), of.get("file")
    yield "container_memory_mapped_file", (), of.get("file_mapped")
    yield "container_memory_kernel_usage", (), of.get("kernel")
    yield "container_memory_failcnt", (), r.memory_events.get("max")
    yield "container_oom_events_total", (), r.memory_events.get("oom_kill")
    yield "container_memory_failures_total", ("pgfault", "hierarchy"), of.get("pgfault")
    yield "container_memory_failures_total", ("pgmajfault", "hierarchy"), of.get("pgmajfault")


def of_processes(p: Processes) -> Iterator[Sample]:
    yield "container_processes", (), p.count
    yield "container_threads", (), p.threads
    yield "container_file_descriptors", (), p.files
    yield "container_sockets", (), p.sockets
    yield "container_ulimits_soft", ("max_open_files",), p.soft_limit


def of_request(resources: Any) -> Iterator[Sample]:
    """A container's LinuxContainerResources."""
    yield "container_spec_cpu_period", (), resources.cpu_period or None
    yield "container_spec_cpu_quota", (), resources.cpu_quota if resources.cpu_quota > 0 else None
    yield "container_spec_cpu_shares", (), resources.cpu_shares or None
    yield "container_spec_memory_limit_bytes", (), max(0, resources.memory_limit_in_bytes)
    yield "container_spec_memory_swap_limit_bytes", (), max(0, resources.memory_swap_limit_in_bytes)
    low = resources.unified.get("memory.low", "")
    yield "container_spec_memory_reservation_limit_bytes", (), int(low) if low.isdecimal() else None


def of_times(started_ns: int, now_ns: int) -> Iterator[Sample]:
    yield "container_start_time_seconds", (), started_ns // 1_000_000_000 or None
    yield "container_last_seen", (), now_ns // 1_000_000_000


def of_files(written: Written | None, room: Room | None) -> Iterator[Sample]:
    if room is None:
        return
    at = (room.device,)
    yield "container_fs_usage_bytes", at, written.bytes if written is not None else None
    yield "container_fs_limit_bytes", at, room.bytes
    yield "container_fs_inodes_total", at, room.inodes
    yield "container_fs_inodes_free", at, room.inodes_free


def of_network(interfaces: Iterable[Interface]) -> Iterator[Sample]:
    for one in interfaces:
        at = (one.name,)
        yield "container_network_receive_bytes_total", at, one.rx_bytes
        yield "container_network_receive_packets_total", at, one.rx_packets
        yield "container_network_receive_errors_total", at, one.rx_errors
        yield "container_network_receive_packets_dropped_total", at, one.rx_dropped
        yield "container_network_transmit_bytes_total", at, one.tx_bytes
        yield "container_network_transmit_packets_total", at, one.tx_packets
        yield "container_network_transmit_errors_total", at, one.tx_errors
        yield "container_network_transmit_packets_dropped_total", at, one.tx_dropped
