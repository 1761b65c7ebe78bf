"""What a pod asks of plug-ins by their capabilities: runtimeConfig's values, and the words of CNI_ARGS."""

from __future__ import annotations

from ....errors import InvalidArgument
from ..model import EGRESS, INGRESS, IPS, PodNet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BURST = (1 << 31) - 1  # bits: as large as the plug-in takes, as the kubelet had it
_SUFFIXES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15} | {
    name: 1024**power for power, name in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi"), 1)
}


def runtime_config(pod: PodNet) -> dict[str, Any]:
    """Capability → value, of those for which the pod has one. InvalidArgument."""
    found: dict[str, Any] = {"io.kubernetes.cri.pod-annotations": dict(pod.annotations)}
    if pod.port_mappings:
        found["portMappings"] = [
            {"hostPort": m.host_port, "containerPort": m.container_port, "protocol": m.protocol, "hostIP": m.host_ip}
            for m in pod.port_mappings
        ]
    bandwidth: dict[str, int] = {}
    for key, name in ((INGRESS, "ingress"), (EGRESS, "egress")):
        if key in pod.annotations:
            bandwidth |= {f"{name}Rate": bits(key, pod.annotations[key]), f"{name}Burst": BURST}
    if bandwidth:
        found["bandwidth"] = bandwidth
    servers, searches, options = pod.dns
    if servers or searches or options:
        found["dns"] = {"servers": list(servers), "searches": list(searches), "options": list(options)}
    if pod.annotations.get(IPS):
        found["ips"] = [ip.strip() for ip in pod.annotations[IPS].split(",")]
    return found


def bits(key: str, text: str) -> int:
    """A quantity of Kubernetes', as 10M: bits a second, from 1k to 1P."""
    digits = text.rstrip("kKMGTPi")
    factor = _SUFFIXES.get(text[len(digits) :])
    if factor is None or not digits.replace(".", "", 1).isdigit() or not digits.isascii():
        raise InvalidArgument(f"annotation {key}: {text!r} is no rate, as 10M")
    value = int(float(digits) * factor)
    if not 1000 <= value <= 10**15:
        raise InvalidArgument(f"annotation {key}: {text} is not between 1k and 1P")
    return value


def cni_args(pod: PodNet) -> str:
    """CNI_ARGS, as every CRI has them. A value with a separator in it would be words of its own."""
    words = {
        "K8S_POD_NAMESPACE": pod.namespace,
        "K8S_POD_NAME": pod.name,
        "K8S_POD_INFRA_CONTAINER_ID": pod.id,
        "K8S_POD_UID": pod.uid,
    }
    for key, value in words.items():
        if any(c in value for c in ";=\0\n"):
            raise InvalidArgument(f"{key}: {value!r} can't be told to a CNI plug-in")
    return ";".join(["IgnoreUnknown=1", *(f"{key}={value}" for key, value in words.items())])
