"""Services, EndpointSlices and nodes as the proxy and the DNS need them: slim values out of plain dicts.

What reads them is in readers.py. Each has an `origin`, the place that asks for it: `FILE:LINE`, or `Service
default/web` where it comes from an API server. A pointer into the object is added to it by whoever speaks of a part.
Addresses are bytes, protocols the numbers of rules.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from ..kube.addresses import Prefix

CLUSTER_IP, NODE_PORT, LOAD_BALANCER, EXTERNAL_NAME = "ClusterIP", "NodePort", "LoadBalancer", "ExternalName"

Name = tuple[str, str]  # namespace and name


class Fault(NamedTuple):
    """What is wrong with an object, or a part of it, that is left out for that. text: without the place."""

    origin: str
    pointer: str
    text: str

    def __str__(self) -> str:
        return f"{self.origin} {self.pointer or '/'}: {self.text}"


class ServicePort(NamedTuple):
    """name: "" where it has none. node_port: 0 where it has none. target_port: a number, a name that each pod has its
    own number for, or None, which is the port itself; only who makes slices needs it. nth: in /spec/ports."""

    name: str
    protocol: int
    port: int
    node_port: int = 0
    target_port: int | str | None = None
    nth: int = 0
    app_protocol: str = ""


class Ingress(NamedTuple):
    """An address of a load balancer. vip: packets for it come here as they are; else (ipMode Proxy) it is the
    balancer's own, and not for us to catch."""

    address: bytes
    vip: bool
    nth: int


@dataclass(frozen=True, slots=True)
class Service:
    """A Service. cluster_ips: at most one of a family; none if headless or an ExternalName.

    external_ips: (address, index in /spec/externalIPs). source_ranges: None if the load balancer is open to all; what
    could not be read is not in it, so that a range that is wrong shuts out and never lets in. affinity: seconds, 0 for
    none. proxy_name: of the label service.kubernetes.io/service-proxy-name, None if it has none. kernel: wanted in the
    kernel; sockets: in user space, which for SCTP costs the client's address.
    """

    namespace: str
    name: str
    origin: str
    type: str = CLUSTER_IP
    cluster_ips: tuple[bytes, ...] = ()
    headless: bool = False
    external_name: str = ""
    ports: tuple[ServicePort, ...] = ()
    external_ips: tuple[tuple[bytes, int], ...] = ()
    ingress: tuple[Ingress, ...] = ()
    source_ranges: tuple[Prefix, ...] | None = None
    internal_local: bool = False
    external_local: bool = False
    affinity: int = 0
    health_check_node_port: int = 0
    publish_not_ready: bool = False
    selector: tuple[tuple[str, str], ...] = ()
    proxy_name: str | None = None
    kernel: bool = False
    sockets: bool = False

    @property
    def id(self) -> Name:
        return self.namespace, self.name


class SlicePort(NamedTuple):
    name: str
    protocol: int
    port: int


class SliceEndpoint(NamedTuple):
    """One endpoint of a slice. pod: namespace and name of the pod that it is, if it says so. nth: in /endpoints."""

    address: bytes
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    node: str = ""
    zone: str = ""
    hostname: str = ""
    zone_hints: tuple[str, ...] = ()
    node_hints: tuple[str, ...] = ()
    pod: Name | None = None
    nth: int = 0


@dataclass(frozen=True, slots=True)
class EndpointSlice:
    """Some of a Service's endpoints, of one family: service is the name in its label, "" if it has none."""

    namespace: str
    name: str
    origin: str
    service: str
    family: int  # 4 or 6
    ports: tuple[SlicePort, ...] = ()
    endpoints: tuple[SliceEndpoint, ...] = ()
    headless: bool = False
    proxy_name: str | None = None

    @property
    def id(self) -> Name:
        return self.namespace, self.name

    @property
    def service_id(self) -> Name:
        return self.namespace, self.service


@dataclass(frozen=True, slots=True)
class Node:
    """This node. addresses: the first of each family is its primary one. pod_cidrs: where all pods of the cluster have
    their addresses; of a family that has none, pods are not told from others. service_cidrs: where Services have
    theirs. node_port_addresses: where NodePorts are, of the node's addresses; None for the primary ones. One
    within loopback has them on 127.0.0.1 or ::1."""

    name: str
    addresses: tuple[bytes, ...] = ()
    zone: str = ""
    pod_cidrs: tuple[Prefix, ...] = ()
    service_cidrs: tuple[Prefix, ...] = ()
    node_port_addresses: tuple[Prefix, ...] | None = None
    deleting: bool = False

    def primary(self, size: int) -> bytes | None:
        """The primary address of the family whose addresses have this many bytes."""
        return next((address for address in self.addresses if len(address) == size), None)


@dataclass(frozen=True, slots=True)
class Options:
    """What an administrator decides. own: within the ranges of services, what a program of this node answers at.
    external_ips: within which /spec/externalIPs are taken; none by default.
    dns: the cluster DNS' addresses, which nobody else gets. host_pods: this node's pods that share its network, where
    somebody knows them; None trusts what a slice says. masquerade_all: endpoints see the node, whoever calls."""

    external_ips: tuple[Prefix, ...] = ()
    dns: tuple[bytes, ...] = ()
    own: tuple[bytes, ...] = ()
    host_pods: frozenset[Name] | None = None
    masquerade_all: bool = False
    proxy_name: str | None = None


@dataclass(slots=True)
class Objects:
    """What a directory or a server has, and what is wrong with it."""

    services: dict[Name, Service] = field(default_factory=dict)
    slices: dict[Name, EndpointSlice] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
