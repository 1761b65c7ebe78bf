"""Counters as the CRI's statistics have them. Pure. What is not known is left unset."""

from __future__ import annotations

from typing import Any

from .. import cri_api as v1
from ..pod.pod import Container, Pod
from ..pod.stats import Interface, Pressure, Reading, Written

DEFAULT_INTERFACE = "eth0"


def value(number: int | None) -> Any:
    """As a wrapped number; None for none."""
    return None if number is None else v1.UInt64Value(value=number)


def container_attributes(c: Container) -> Any:
    return v1.ContainerAttributes(
        id=c.id, metadata=c.config.metadata, labels=dict(c.config.labels), annotations=dict(c.config.annotations)
    )


def pod_attributes(pod: Pod) -> Any:
    return v1.PodSandboxAttributes(
        id=pod.id,
        metadata=pod.config.metadata,
        labels=dict(pod.config.labels),
        annotations=dict(pod.config.annotations),
    )


def cpu_usage(time: int, reading: Reading, rate: int | None) -> Any:
    used = reading.cpu.get("usage_usec")
    return v1.CpuUsage(
        timestamp=time,
        usage_core_nano_seconds=value(None if used is None else used * 1000),
        usage_nano_cores=value(rate),
        psi=psi(reading, "cpu"),
    )


def memory_usage(time: int, reading: Reading) -> Any:
    """available: up to the limit; unset where there is none."""
    working, limit = reading.working_set, reading.memory_max
    return v1.MemoryUsage(
        timestamp=time,
        working_set_bytes=value(working),
        available_bytes=value(None if working is None or limit is None else max(0, limit - working)),
        usage_bytes=value(reading.memory_current),
        rss_bytes=value(reading.memory.get("anon")),
        page_faults=value(reading.memory.get("pgfault")),
        major_page_faults=value(reading.memory.get("pgmajfault")),
        psi=psi(reading, "memory"),
    )


def swap_usage(time: int, reading: Reading) -> Any:
    """None where nothing of it is known."""
    used, limit = reading.swap_current, reading.swap_max
    if used is None:
        return None
    available = None if limit is None else max(0, limit - used)
    return v1.SwapUsage(timestamp=time, swap_available_bytes=value(available), swap_usage_bytes=value(used))


def io_usage(time: int, reading: Reading) -> Any:
    found = psi(reading, "io")
    return None if found is None else v1.IoUsage(timestamp=time, psi=found)


def psi(reading: Reading, resource: str) -> Any:
    """None where the kernel keeps none. The kernel counts µs and the CRI ns."""
    found = reading.pressure.get(resource)
    if not found:
        return None
    return v1.PsiStats(Full=_psi_data(found.get("full")), Some=_psi_data(found.get("some")))


def _psi_data(line: Pressure | None) -> Any:
    if line is None:
        return None
    return v1.PsiData(Total=line.total * 1000, Avg10=line.avg10, Avg60=line.avg60, Avg300=line.avg300)


def written_layer(written: Written | None, mountpoint: str) -> Any:
    if written is None:
        return None
    return v1.FilesystemUsage(
        timestamp=written.time,
        fs_id=v1.FilesystemIdentifier(mountpoint=mountpoint),
        used_bytes=value(written.bytes),
        inodes_used=value(written.inodes),
    )


def network_usage(time: int, interfaces: list[Interface]) -> Any:
    """eth0, or the first one there is, is the default; the others come after it."""
    if not interfaces:
        return None
    first = next((one for one in interfaces if one.name == DEFAULT_INTERFACE), interfaces[0])
    return v1.NetworkUsage(
        timestamp=time,
        default_interface=_interface(first),
        interfaces=[_interface(one) for one in interfaces if one is not first],
    )


def _interface(one: Interface) -> Any:
    return v1.NetworkInterfaceUsage(
        name=one.name,
        rx_bytes=value(one.rx_bytes),
        rx_errors=value(one.rx_errors),
        tx_bytes=value(one.tx_bytes),
        tx_errors=value(one.tx_errors),
    )


def container_stats(c: Container, time: int, reading: Reading | None, rate: int | None, layer: Any) -> Any:
    """layer: a FilesystemUsage or None."""
    made = v1.ContainerStats(attributes=container_attributes(c), writable_layer=layer)
    if reading is not None:
        made.MergeFrom(
            v1.ContainerStats(
                cpu=cpu_usage(time, reading, rate),
                memory=memory_usage(time, reading),
                swap=swap_usage(time, reading),
                io=io_usage(time, reading),
            )
        )
    return made


def pod_stats(pod: Pod, time: int, reading: Reading | None, rate: int | None, interfaces: list[Interface]) -> Any:
    """Without its containers."""
    made = v1.PodSandboxStats(attributes=pod_attributes(pod))
    made.linux.SetInParent()
    network = network_usage(time, interfaces)
    if network is not None:
        made.linux.network.CopyFrom(network)
    if reading is not None:
        made.linux.MergeFrom(
            v1.LinuxPodSandboxStats(
                cpu=cpu_usage(time, reading, rate), memory=memory_usage(time, reading), io=io_usage(time, reading)
            )
        )
        if reading.threads is not None:
            made.linux.process.CopyFrom(v1.ProcessUsage(timestamp=time, process_count=value(reading.threads)))
    return made
