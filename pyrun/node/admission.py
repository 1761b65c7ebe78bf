"""PURE: whether a node takes a pod. Source: kubernetes pkg/kubelet/lifecycle/predicate.go, and its reasons' names.

Asked once, before anything is made of a pod: what runs is never asked again, whatever becomes of the node
(kubernetes#123980, #100467).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..kube.objects.pods import PodSpec
from ..kube.quantity import human_bytes
from .plan.resize import DEFERRED, INFEASIBLE, loses_limit
from .plan.restart import is_sidecar
from .qos import pod_requests, qos_class

MOST_PODS = 110
# A kubelet's list of sysctls that are the pod's own and harm nobody else (pkg/kubelet/sysctl/safe_sysctls.go).
SAFE_SYSCTLS = {
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start", "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem", "net.ipv4.tcp_slow_start_after_idle", "net.ipv4.tcp_notsent_lowat",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Allocatable:
    """cpu in thousandths, memory in bytes, pods by number; sysctls: allowed besides the safe ones, with * at an end."""

    cpu: int
    memory: int
    pods: int = MOST_PODS
    sysctls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A pod that was admitted and has not ended. name: NAMESPACE/NAME."""

    name: str
    spec: PodSpec


def refusal(spec: PodSpec, node: Allocatable, others: Iterable[Neighbour]) -> tuple[str, str] | None:
    """(reason, message) of why it is not taken."""
    for sysctl in (spec.securityContext and spec.securityContext.sysctls) or ():
        name = sysctl.name.replace("/", ".")
        if name not in SAFE_SYSCTLS and not _allowed(name, node.sysctls):
            return "SysctlForbidden", f"sysctl {sysctl.name} is not among those that this node allows"
    found = list(others)
    if len(found) >= node.pods:
        return "OutOfpods", f"{len(found)} pods are here, {node.pods} are the most"
    wanted, used = pod_requests(spec), [pod_requests(other.spec) for other in found]
    for name, has, told in (("cpu", node.cpu, _cpu), ("memory", node.memory, human_bytes)):
        left = has - sum(u.get(name, 0) for u in used)
        if wanted.get(name, 0) > left:
            return f"OutOf{name}", f"{told(wanted[name])} of {name} wanted, {told(max(left, 0))} of {told(has)} left"
    for port in host_ports(spec):
        for other in found:
            if any(_clash(port, taken) for taken in host_ports(other.spec)):
                return "NodePorts", f"host port {port[2]}/{port[0]} is taken by {other.name}"
    return None


def resize_refusal(
    before: PodSpec, after: PodSpec, node: Allocatable, others: Iterable[Neighbour]
) -> tuple[str, str] | None:
    """(Infeasible or Deferred, message) of why a pod does not get other resources now. Less is always given."""
    if qos_class(before) != qos_class(after):
        return INFEASIBLE, f"its quality of service may not change: {qos_class(before)} now, {qos_class(after)} wanted"
    if before.resources != after.resources:
        return INFEASIBLE, "resources of a pod as a whole do not change while it runs on this node"
    if name := loses_limit(before, after):
        return INFEASIBLE, f"container {name} has a limit of memory, which is not taken away while it runs"
    has, wanted, used = pod_requests(before), pod_requests(after), [pod_requests(other.spec) for other in others]
    for name, total, told in (("cpu", node.cpu, _cpu), ("memory", node.memory, human_bytes)):
        if wanted.get(name, 0) <= has.get(name, 0):
            continue
        if wanted[name] > total:
            return INFEASIBLE, f"{told(wanted[name])} of {name} wanted, and this node has {told(total)}"
        left = total - sum(u.get(name, 0) for u in used)
        if wanted[name] > left:
            return DEFERRED, f"{told(wanted[name])} of {name} wanted, {told(max(left, 0))} of {told(total)} left"
    return None


def tolerates_memory_pressure(spec: PodSpec) -> bool:
    """The taint that a node has then."""
    name = "node.kubernetes.io/memory-pressure"
    return any(
        one.effect in (None, "", "NoSchedule")
        and (one.key == name if one.key else one.operator == "Exists")
        and (one.operator == "Exists" or not one.value)
        for one in spec.tolerations or ()
    )


def _cpu(thousandths: int) -> str:
    return f"{thousandths}m"


def _allowed(name: str, allowed: Iterable[str]) -> bool:
    return any(name == one or (one.endswith("*") and name.startswith(one[:-1])) for one in allowed)


def host_ports(spec: PodSpec) -> list[tuple[str, str, int]]:
    """(protocol, address, port) of app containers and sidecars."""
    kept = [*(c for c in spec.initContainers or () if is_sidecar(c)), *spec.containers]
    return [(p.protocol or "TCP", p.hostIP or "", p.hostPort) for c in kept for p in c.ports or () if p.hostPort]


def _clash(a: tuple[str, str, int], b: tuple[str, str, int]) -> bool:
    everywhere = ("", "0.0.0.0", "::")
    return a[0] == b[0] and a[2] == b[2] and (a[1] == b[1] or a[1] in everywhere or b[1] in everywhere)
