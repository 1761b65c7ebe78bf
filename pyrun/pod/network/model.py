"""What a network is asked for and what it answers: a pod, its ports, its addresses."""

from __future__ import annotations

from ...errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

TCP, UDP, SCTP = range(3)  # Protocol of the CRI
PROTOCOLS = ("tcp", "udp", "sctp")
IPS = "pyrun.dev/ips"  # an annotation: addresses that the pod wants, with commas between
INGRESS, EGRESS = "kubernetes.io/ingress-bandwidth", "kubernetes.io/egress-bandwidth"


class PortMapping:
    """A port of the host that leads to one of the pod. protocol: of PROTOCOLS; host_ip "": any address."""

    __slots__ = ("container_port", "host_ip", "host_port", "protocol")

    def __init__(self, protocol: str, host_port: int, container_port: int, host_ip: str = "") -> None:
        self.protocol = protocol
        self.host_port = host_port
        self.container_port = container_port
        self.host_ip = host_ip


class PodNet:
    """A pod as its network sees it. netns: the path of its network namespace, "" when that is gone. port_mappings:
    those with a port of the host. dns: (servers, searches, options)."""

    __slots__ = ("annotations", "dns", "id", "labels", "name", "namespace", "netns", "port_mappings", "uid")

    def __init__(
        self,
        id: str,
        *,
        name: str = "",
        namespace: str = "",
        uid: str = "",
        netns: str = "",
        port_mappings: tuple[PortMapping, ...] = (),
        dns: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]] = ((), (), ()),
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> None:
        self.id = id
        self.name = name
        self.namespace = namespace
        self.uid = uid
        self.netns = netns
        self.port_mappings = port_mappings
        self.dns = dns
        self.labels = labels or {}
        self.annotations = annotations or {}

    @classmethod
    def of(cls, pod: str, config: Any, netns: str | None) -> PodNet:
        """That of a PodSandboxConfig. InvalidArgument."""
        meta, dns = config.metadata, config.dns_config
        return cls(
            pod,
            name=meta.name,
            namespace=meta.namespace,
            uid=meta.uid,
            netns=netns or "",
            port_mappings=tuple(_mapping(m) for m in config.port_mappings if m.host_port),
            dns=(tuple(dns.servers), tuple(dns.searches), tuple(dns.options)),
            labels=dict(config.labels),
            annotations=dict(config.annotations),
        )


def _mapping(given: Any) -> PortMapping:
    if not (0 < given.host_port < 65536 and 0 < given.container_port < 65536):
        raise InvalidArgument(f"port_mappings: {given.host_port} to {given.container_port} are no ports")
    if given.protocol not in range(len(PROTOCOLS)):
        raise InvalidArgument(f"port_mappings: there is no protocol {given.protocol}")
    return PortMapping(PROTOCOLS[given.protocol], given.host_port, given.container_port, given.host_ip)


class NetResult:
    """ips: the pod's addresses, the first is the one that is shown as the pod's. interface: its name in the pod. dns:
    what the network wants in resolv.conf where the request says nothing: (servers, searches, options)."""

    __slots__ = ("dns", "interface", "ips")

    def __init__(
        self,
        ips: tuple[str, ...],
        interface: str = "eth0",
        dns: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]] = ((), (), ()),
    ) -> None:
        self.ips = ips
        self.interface = interface
        self.dns = dns
