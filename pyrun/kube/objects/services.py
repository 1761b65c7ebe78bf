"""Types of Kubernetes: Services and their endpoints.

Generated from lightkube-models 1.37.0.8 by `make kube-objects`; do not edit.
"""

from __future__ import annotations

from .base import IntOrString, Object
from .meta import Condition, ListMeta, ObjectMeta


class ServicePort(Object):
    port: int
    appProtocol: str | None = None
    name: str | None = None
    nodePort: int | None = None
    protocol: str | None = None
    targetPort: IntOrString | None = None


class ClientIPConfig(Object):
    timeoutSeconds: int | None = None


class SessionAffinityConfig(Object):
    clientIP: ClientIPConfig | None = None


class ServiceSpec(Object):
    allocateLoadBalancerNodePorts: bool | None = None
    clusterIP: str | None = None
    clusterIPs: list[str] | None = None
    externalIPs: list[str] | None = None
    externalName: str | None = None
    externalTrafficPolicy: str | None = None
    healthCheckNodePort: int | None = None
    internalTrafficPolicy: str | None = None
    ipFamilies: list[str] | None = None
    ipFamilyPolicy: str | None = None
    loadBalancerClass: str | None = None
    loadBalancerIP: str | None = None
    loadBalancerSourceRanges: list[str] | None = None
    ports: list[ServicePort] | None = None
    publishNotReadyAddresses: bool | None = None
    selector: dict[str, str] | None = None
    sessionAffinity: str | None = None
    sessionAffinityConfig: SessionAffinityConfig | None = None
    trafficDistribution: str | None = None
    type: str | None = None


class PortStatus(Object):
    port: int
    protocol: str
    error: str | None = None


class LoadBalancerIngress(Object):
    hostname: str | None = None
    ip: str | None = None
    ipMode: str | None = None
    ports: list[PortStatus] | None = None


class LoadBalancerStatus(Object):
    ingress: list[LoadBalancerIngress] | None = None


class ServiceStatus(Object):
    conditions: list[Condition] | None = None
    loadBalancer: LoadBalancerStatus | None = None


class Service(Object):
    apiVersion: str | None = None
    kind: str | None = None
    metadata: ObjectMeta | None = None
    spec: ServiceSpec | None = None
    status: ServiceStatus | None = None


class ServiceList(Object):
    items: list[Service]
    apiVersion: str | None = None
    kind: str | None = None
    metadata: ListMeta | None = None


class EndpointConditions(Object):
    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class ForNode(Object):
    name: str


class ForZone(Object):
    name: str


class EndpointHints(Object):
    forNodes: list[ForNode] | None = None
    forZones: list[ForZone] | None = None


class ObjectReference(Object):
    apiVersion: str | None = None
    fieldPath: str | None = None
    kind: str | None = None
    name: str | None = None
    namespace: str | None = None
    resourceVersion: str | None = None
    uid: str | None = None


class Endpoint(Object):
    addresses: list[str]
    conditions: EndpointConditions | None = None
    deprecatedTopology: dict[str, str] | None = None
    hints: EndpointHints | None = None
    hostname: str | None = None
    nodeName: str | None = None
    targetRef: ObjectReference | None = None
    zone: str | None = None


class EndpointPort(Object):
    port: int
    appProtocol: str | None = None
    name: str | None = None
    protocol: str | None = None


class EndpointSlice(Object):
    addressType: str
    apiVersion: str | None = None
    endpoints: list[Endpoint] | None = None
    kind: str | None = None
    metadata: ObjectMeta | None = None
    ports: list[EndpointPort] | None = None


class EndpointSliceList(Object):
    items: list[EndpointSlice]
    apiVersion: str | None = None
    kind: str | None = None
    metadata: ListMeta | None = None
