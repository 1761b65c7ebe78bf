"""Types of Kubernetes: pods.

Generated from lightkube-models 1.37.0.8 by `make kube-objects`; do not edit.
"""

from __future__ import annotations

from .base import Object, Quantity
from .containers import (
    AppArmorProfile,
    Container,
    EphemeralContainer,
    ResourceRequirements,
    SeccompProfile,
    SELinuxOptions,
    WindowsSecurityContextOptions,
)
from .meta import ListMeta, ObjectMeta
from .scheduling import Affinity, Toleration, TopologySpreadConstraint
from .status import PodStatus
from .volumes import LocalObjectReference, Volume


class PodDNSConfigOption(Object):
    name: str | None = None
    value: str | None = None


class PodDNSConfig(Object):
    nameservers: list[str] | None = None
    options: list[PodDNSConfigOption] | None = None
    searches: list[str] | None = None


class EvictionResponder(Object):
    name: str
    priority: int


class HostAlias(Object):
    ip: str
    hostnames: list[str] | None = None


class PodOS(Object):
    name: str


class PodReadinessGate(Object):
    conditionType: str


class PodResourceClaim(Object):
    name: str
    resourceClaimName: str | None = None
    resourceClaimTemplateName: str | None = None


class PodSchedulingGate(Object):
    name: str


class PodSchedulingGroup(Object):
    podGroupName: str | None = None


class Sysctl(Object):
    name: str
    value: str


class PodSecurityContext(Object):
    appArmorProfile: AppArmorProfile | None = None
    fsGroup: int | None = None
    fsGroupChangePolicy: str | None = None
    runAsGroup: int | None = None
    runAsNonRoot: bool | None = None
    runAsUser: int | None = None
    seLinuxChangePolicy: str | None = None
    seLinuxOptions: SELinuxOptions | None = None
    seccompProfile: SeccompProfile | None = None
    supplementalGroups: list[int] | None = None
    supplementalGroupsPolicy: str | None = None
    sysctls: list[Sysctl] | None = None
    windowsOptions: WindowsSecurityContextOptions | None = None


class PodSpec(Object):
    containers: list[Container]
    activeDeadlineSeconds: int | None = None
    affinity: Affinity | None = None
    automountServiceAccountToken: bool | None = None
    dnsConfig: PodDNSConfig | None = None
    dnsPolicy: str | None = None
    enableServiceLinks: bool | None = None
    ephemeralContainers: list[EphemeralContainer] | None = None
    evictionResponders: list[EvictionResponder] | None = None
    hostAliases: list[HostAlias] | None = None
    hostIPC: bool | None = None
    hostNetwork: bool | None = None
    hostPID: bool | None = None
    hostUsers: bool | None = None
    hostname: str | None = None
    hostnameOverride: str | None = None
    imagePullSecrets: list[LocalObjectReference] | None = None
    initContainers: list[Container] | None = None
    nodeName: str | None = None
    nodeSelector: dict[str, str] | None = None
    os: PodOS | None = None
    overhead: dict[str, Quantity] | None = None
    preemptionPolicy: str | None = None
    priority: int | None = None
    priorityClassName: str | None = None
    readinessGates: list[PodReadinessGate] | None = None
    resourceClaims: list[PodResourceClaim] | None = None
    resources: ResourceRequirements | None = None
    restartPolicy: str | None = None
    runtimeClassName: str | None = None
    schedulerName: str | None = None
    schedulingGates: list[PodSchedulingGate] | None = None
    schedulingGroup: PodSchedulingGroup | None = None
    securityContext: PodSecurityContext | None = None
    serviceAccount: str | None = None
    serviceAccountName: str | None = None
    setHostnameAsFQDN: bool | None = None
    shareProcessNamespace: bool | None = None
    subdomain: str | None = None
    terminationGracePeriodSeconds: int | None = None
    tolerations: list[Toleration] | None = None
    topologySpreadConstraints: list[TopologySpreadConstraint] | None = None
    volumes: list[Volume] | None = None


class Pod(Object):
    apiVersion: str | None = None
    kind: str | None = None
    metadata: ObjectMeta | None = None
    spec: PodSpec | None = None
    status: PodStatus | None = None


class PodList(Object):
    items: list[Pod]
    apiVersion: str | None = None
    kind: str | None = None
    metadata: ListMeta | None = None


class PodTemplateSpec(Object):
    metadata: ObjectMeta | None = None
    spec: PodSpec | None = None
