"""Types of Kubernetes: nodes, their leases, and events.

Generated from lightkube-models 1.37.0.8 by `make kube-objects`; do not edit.
"""

from __future__ import annotations

from .base import Object, Quantity, Time
from .meta import ListMeta, ObjectMeta
from .services import ObjectReference


class ConfigMapNodeConfigSource(Object):
    kubeletConfigKey: str
    name: str
    namespace: str
    resourceVersion: str | None = None
    uid: str | None = None


class NodeConfigSource(Object):
    configMap: ConfigMapNodeConfigSource | None = None


class NodePodPreemptionPolicy(Object):
    disableResizePreemption: list[str] | None = None


class Taint(Object):
    effect: str
    key: str
    timeAdded: Time | None = None
    value: str | None = None


class NodeSpec(Object):
    configSource: NodeConfigSource | None = None
    externalID: str | None = None
    podCIDR: str | None = None
    podCIDRs: list[str] | None = None
    podPreemptionPolicy: NodePodPreemptionPolicy | None = None
    providerID: str | None = None
    taints: list[Taint] | None = None
    unschedulable: bool | None = None


class NodeAddress(Object):
    address: str
    type: str


class NodeCondition(Object):
    status: str
    type: str
    lastHeartbeatTime: Time | None = None
    lastTransitionTime: Time | None = None
    message: str | None = None
    reason: str | None = None


class NodeConfigStatus(Object):
    active: NodeConfigSource | None = None
    assigned: NodeConfigSource | None = None
    error: str | None = None
    lastKnownGood: NodeConfigSource | None = None


class DaemonEndpoint(Object):
    Port: int


class NodeDaemonEndpoints(Object):
    kubeletEndpoint: DaemonEndpoint | None = None


class NodeFeatures(Object):
    supplementalGroupsPolicy: bool | None = None


class ContainerImage(Object):
    names: list[str] | None = None
    sizeBytes: int | None = None


class NodeSwapStatus(Object):
    capacity: int | None = None


class NodeSystemInfo(Object):
    architecture: str
    bootID: str
    containerRuntimeVersion: str
    kernelVersion: str
    kubeProxyVersion: str
    kubeletVersion: str
    machineID: str
    operatingSystem: str
    osImage: str
    systemUUID: str
    runningInUserNamespace: bool | None = None
    swap: NodeSwapStatus | None = None


class NodeRuntimeHandlerFeatures(Object):
    recursiveReadOnlyMounts: bool | None = None
    userNamespaces: bool | None = None


class NodeRuntimeHandler(Object):
    features: NodeRuntimeHandlerFeatures | None = None
    name: str | None = None


class AttachedVolume(Object):
    devicePath: str
    name: str


class NodeStatus(Object):
    addresses: list[NodeAddress] | None = None
    allocatable: dict[str, Quantity] | None = None
    capacity: dict[str, Quantity] | None = None
    conditions: list[NodeCondition] | None = None
    config: NodeConfigStatus | None = None
    daemonEndpoints: NodeDaemonEndpoints | None = None
    declaredFeatures: list[str] | None = None
    features: NodeFeatures | None = None
    images: list[ContainerImage] | None = None
    nodeInfo: NodeSystemInfo | None = None
    phase: str | None = None
    runtimeHandlers: list[NodeRuntimeHandler] | None = None
    volumesAttached: list[AttachedVolume] | None = None
    volumesInUse: list[str] | None = None


class Node(Object):
    apiVersion: str | None = None
    kind: str | None = None
    metadata: ObjectMeta | None = None
    spec: NodeSpec | None = None
    status: NodeStatus | None = None


class NodeList(Object):
    items: list[Node]
    apiVersion: str | None = None
    kind: str | None = None
    metadata: ListMeta | None = None


class LeaseSpec(Object):
    acquireTime: Time | None = None
    holderIdentity: str | None = None
    leaseDurationSeconds: int | None = None
    leaseTransitions: int | None = None
    preferredHolder: str | None = None
    renewTime: Time | None = None
    strategy: str | None = None


class Lease(Object):
    apiVersion: str | None = None
    kind: str | None = None
    metadata: ObjectMeta | None = None
    spec: LeaseSpec | None = None


class NamespaceSpec(Object):
    finalizers: list[str] | None = None


class NamespaceCondition(Object):
    status: str
    type: str
    lastTransitionTime: Time | None = None
    message: str | None = None
    reason: str | None = None


class NamespaceStatus(Object):
    conditions: list[NamespaceCondition] | None = None
    phase: str | None = None


class Namespace(Object):
    apiVersion: str | None = None
    kind: str | None = None
    metadata: ObjectMeta | None = None
    spec: NamespaceSpec | None = None
    status: NamespaceStatus | None = None


class EventSeries(Object):
    count: int | None = None
    lastObservedTime: Time | None = None


class EventSource(Object):
    component: str | None = None
    host: str | None = None


class Event(Object):
    involvedObject: ObjectReference
    metadata: ObjectMeta
    action: str | None = None
    apiVersion: str | None = None
    count: int | None = None
    eventTime: Time | None = None
    firstTimestamp: Time | None = None
    kind: str | None = None
    lastTimestamp: Time | None = None
    message: str | None = None
    reason: str | None = None
    related: ObjectReference | None = None
    reportingComponent: str | None = None
    reportingInstance: str | None = None
    series: EventSeries | None = None
    source: EventSource | None = None
    type: str | None = None
