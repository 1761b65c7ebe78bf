"""Types of Kubernetes: what became of a pod.

Generated from lightkube-models 1.37.0.8 by `make kube-objects`; do not edit.
"""

from __future__ import annotations

from .base import Object, Quantity, Time
from .containers import ResourceRequirements


class PodCondition(Object):
    status: str
    type: str
    lastProbeTime: Time | None = None
    lastTransitionTime: Time | None = None
    message: str | None = None
    observedGeneration: int | None = None
    reason: str | None = None


class ResourceHealth(Object):
    resourceID: str
    health: str | None = None
    message: str | None = None


class ResourceStatus(Object):
    name: str
    resources: list[ResourceHealth] | None = None


class ContainerStateRunning(Object):
    startedAt: Time | None = None


class ContainerStateTerminated(Object):
    exitCode: int
    containerID: str | None = None
    finishedAt: Time | None = None
    message: str | None = None
    reason: str | None = None
    signal: int | None = None
    startedAt: Time | None = None


class ContainerStateWaiting(Object):
    message: str | None = None
    reason: str | None = None


class ContainerState(Object):
    running: ContainerStateRunning | None = None
    terminated: ContainerStateTerminated | None = None
    waiting: ContainerStateWaiting | None = None


class LinuxContainerUser(Object):
    gid: int
    uid: int
    supplementalGroups: list[int] | None = None


class ContainerUser(Object):
    linux: LinuxContainerUser | None = None


class ImageVolumeStatus(Object):
    imageRef: str


class VolumeStatus(Object):
    image: ImageVolumeStatus | None = None


class VolumeMountStatus(Object):
    mountPath: str
    name: str
    readOnly: bool | None = None
    recursiveReadOnly: str | None = None
    volumeStatus: VolumeStatus | None = None


class ContainerStatus(Object):
    image: str
    imageID: str
    name: str
    ready: bool
    restartCount: int
    allocatedResources: dict[str, Quantity] | None = None
    allocatedResourcesStatus: list[ResourceStatus] | None = None
    containerID: str | None = None
    lastState: ContainerState | None = None
    resources: ResourceRequirements | None = None
    started: bool | None = None
    state: ContainerState | None = None
    stopSignal: str | None = None
    user: ContainerUser | None = None
    volumeMounts: list[VolumeMountStatus] | None = None


class ContainerExtendedResourceRequest(Object):
    containerName: str
    requestName: str
    resourceName: str


class PodExtendedResourceClaimStatus(Object):
    requestMappings: list[ContainerExtendedResourceRequest]
    resourceClaimName: str


class HostIP(Object):
    ip: str


class NodeAllocatableMappedResources(Object):
    name: str
    quantity: Quantity


class NodeAllocatableOverheadResources(Object):
    name: str
    perContainer: Quantity | None = None
    perPod: Quantity | None = None


class NodeAllocatableResourceClaimStatus(Object):
    resourceClaimName: str
    containers: list[str] | None = None
    mapping: list[NodeAllocatableMappedResources] | None = None
    overhead: list[NodeAllocatableOverheadResources] | None = None


class PodIP(Object):
    ip: str


class PodResourceClaimStatus(Object):
    name: str
    resourceClaimName: str | None = None


class VolumeHealthCondition(Object):
    reason: str
    status: str
    message: str | None = None


class PodVolumeHealth(Object):
    name: str
    healthConditions: list[VolumeHealthCondition] | None = None
    lastTransitionTime: Time | None = None


class PodStatus(Object):
    allocatedResources: dict[str, Quantity] | None = None
    conditions: list[PodCondition] | None = None
    containerStatuses: list[ContainerStatus] | None = None
    ephemeralContainerStatuses: list[ContainerStatus] | None = None
    extendedResourceClaimStatus: PodExtendedResourceClaimStatus | None = None
    hostIP: str | None = None
    hostIPs: list[HostIP] | None = None
    initContainerStatuses: list[ContainerStatus] | None = None
    message: str | None = None
    nodeAllocatableResourceClaimStatuses: list[NodeAllocatableResourceClaimStatus] | None = None
    nominatedNodeName: str | None = None
    observedGeneration: int | None = None
    phase: str | None = None
    podIP: str | None = None
    podIPs: list[PodIP] | None = None
    qosClass: str | None = None
    reason: str | None = None
    resize: str | None = None
    resourceClaimStatuses: list[PodResourceClaimStatus] | None = None
    resources: ResourceRequirements | None = None
    startTime: Time | None = None
    volumeHealth: list[PodVolumeHealth] | None = None
