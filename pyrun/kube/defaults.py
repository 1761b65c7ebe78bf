"""PURE: what an absent field of a pod is. Source: kubernetes pkg/apis/core/v1/defaults.go of 1.37.

Files have no API server before them, so these are ours; a real one is the oracle (tests/cluster).
"""

from __future__ import annotations

from .objects.apps import Deployment, DeploymentStrategy, RollingUpdateDeployment
from .objects.containers import Container, EphemeralContainer, HTTPGetAction, Probe, ResourceRequirements
from .objects.meta import ObjectMeta
from .objects.pods import Pod, PodSecurityContext, PodSpec
from .objects.volumes import (
    DownwardAPIVolumeFile,
    EmptyDirVolumeSource,
    ObjectFieldSelector,
    ResourceFieldSelector,
    Volume,
)
from .resources import container_requests

FILE_MODE = 0o644
TOKEN_SECONDS = 3600
GRACE_S = 30


def default_pod(pod: Pod) -> Pod:
    """Sets them in place, and gives the pod back."""
    pod.metadata = pod.metadata or ObjectMeta()
    pod.metadata.namespace = pod.metadata.namespace or "default"
    if pod.spec is not None:
        default_spec(pod.spec)
    return pod


def default_deployment(found: Deployment) -> None:
    """Sets them in place."""
    found.metadata = found.metadata or ObjectMeta()
    found.metadata.namespace = found.metadata.namespace or "default"
    spec = found.spec
    if spec.template.spec is not None:
        default_spec(spec.template.spec)
    spec.replicas = 1 if spec.replicas is None else spec.replicas
    spec.progressDeadlineSeconds = spec.progressDeadlineSeconds or 600
    spec.strategy = spec.strategy or DeploymentStrategy()
    spec.strategy.type = spec.strategy.type or "RollingUpdate"
    if spec.strategy.type == "RollingUpdate":
        rolling = spec.strategy.rollingUpdate = spec.strategy.rollingUpdate or RollingUpdateDeployment()
        rolling.maxSurge = "25%" if rolling.maxSurge is None else rolling.maxSurge
        rolling.maxUnavailable = "25%" if rolling.maxUnavailable is None else rolling.maxUnavailable


def default_spec(spec: PodSpec) -> None:
    spec.restartPolicy = spec.restartPolicy or "Always"
    spec.dnsPolicy = spec.dnsPolicy or "ClusterFirst"
    spec.schedulerName = spec.schedulerName or "default-scheduler"
    spec.securityContext = spec.securityContext or PodSecurityContext()
    if spec.terminationGracePeriodSeconds is None:
        spec.terminationGracePeriodSeconds = GRACE_S
    if spec.terminationGracePeriodSeconds < 0:
        spec.terminationGracePeriodSeconds = 1  # as an API server reads it
    if spec.enableServiceLinks is None:
        spec.enableServiceLinks = True
    if spec.serviceAccountName or spec.serviceAccount:
        spec.serviceAccountName = spec.serviceAccount = spec.serviceAccountName or spec.serviceAccount
    for volume in spec.volumes or ():
        _volume(volume)
    for init in spec.initContainers or ():
        _container(init, spec)
    for app in spec.containers:
        _container(app, spec)
    for ephemeral in spec.ephemeralContainers or ():
        _container(ephemeral, spec)
    if spec.resources is not None:
        _whole(spec.resources, spec)


def _container(c: Container | EphemeralContainer, spec: PodSpec) -> None:
    c.terminationMessagePath = c.terminationMessagePath or "/dev/termination-log"
    c.terminationMessagePolicy = c.terminationMessagePolicy or "File"
    c.imagePullPolicy = c.imagePullPolicy or pull_policy(c.image or "")
    for port in c.ports or ():
        port.protocol = port.protocol or "TCP"
        if spec.hostNetwork and not port.hostPort:
            port.hostPort = port.containerPort
    for variable in c.env or ():
        if variable.valueFrom and variable.valueFrom.fieldRef:
            _field(variable.valueFrom.fieldRef)
        if variable.valueFrom and variable.valueFrom.resourceFieldRef:
            _divisor(variable.valueFrom.resourceFieldRef)
        if variable.valueFrom and (file := variable.valueFrom.fileKeyRef) and file.optional is None:
            file.optional = False
    for probe in (c.livenessProbe, c.readinessProbe, c.startupProbe):
        if probe is not None:
            _probe(probe)
    if c.lifecycle is not None:
        for handler in (c.lifecycle.postStart, c.lifecycle.preStop):
            if handler is not None and handler.httpGet is not None:
                _http(handler.httpGet)
    if c.resources is None and isinstance(c, Container):
        c.resources = ResourceRequirements()
    _requests(c.resources)


def pull_policy(image: str) -> str:
    """Always for :latest and for no tag, unless there is a digest."""
    name, at, _ = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    return "IfNotPresent" if at or tag not in ("", "latest") else "Always"


def _whole(found: ResourceRequirements, spec: PodSpec) -> None:
    """A request of the pod that is not given is what its containers request, or where none does, its limit (KEP-2837).
    Of what is malformed nothing is made."""
    given = dict(found.requests or {})
    try:
        total = container_requests(spec)
    except ValueError:
        total = {}
    for name in ("cpu", "memory"):
        if name in total:
            given.setdefault(name, f"{total[name]}m" if name == "cpu" else total[name])
    for name, limit in (found.limits or {}).items():
        given.setdefault(name, limit)
    if given:
        found.requests = given


def _requests(found: ResourceRequirements | None) -> None:
    """A request that is not given is its limit."""
    if found is not None and found.limits:
        found.requests = {**found.limits, **(found.requests or {})}


def _probe(probe: Probe) -> None:
    probe.timeoutSeconds = probe.timeoutSeconds or 1
    probe.periodSeconds = probe.periodSeconds or 10
    probe.successThreshold = probe.successThreshold or 1
    probe.failureThreshold = probe.failureThreshold or 3
    if probe.httpGet is not None:
        _http(probe.httpGet)
    if probe.grpc is not None and probe.grpc.service is None:
        probe.grpc.service = ""


def _http(http: HTTPGetAction) -> None:
    if not http.path:
        http.path = "/"
    http.scheme = http.scheme or "HTTP"


def _field(ref: ObjectFieldSelector) -> None:
    ref.apiVersion = ref.apiVersion or "v1"


def _divisor(ref: ResourceFieldSelector) -> None:
    """0 is 1; so an API server has it."""
    if ref.divisor is None:
        ref.divisor = "0"


def _volume(volume: Volume) -> None:
    if all(getattr(volume, name) is None for name in volume.__struct_fields__[1:]):
        volume.emptyDir = EmptyDirVolumeSource()
    for source in (volume.secret, volume.configMap, volume.projected, volume.downwardAPI):
        if source is not None and source.defaultMode is None:
            source.defaultMode = FILE_MODE
    if volume.hostPath is not None and volume.hostPath.type is None:
        volume.hostPath.type = ""
    if volume.image is not None:
        volume.image.pullPolicy = volume.image.pullPolicy or pull_policy(volume.image.reference or "")
    if volume.downwardAPI is not None:
        _downward(volume.downwardAPI.items)
    if volume.projected is not None:
        for one in volume.projected.sources or ():
            if one.serviceAccountToken is not None and one.serviceAccountToken.expirationSeconds is None:
                one.serviceAccountToken.expirationSeconds = TOKEN_SECONDS
            _downward(one.downwardAPI.items if one.downwardAPI else None)


def _downward(items: list[DownwardAPIVolumeFile] | None) -> None:
    for item in items or ():
        if item.fieldRef is not None:
            _field(item.fieldRef)
        if item.resourceFieldRef is not None:
            _divisor(item.resourceFieldRef)
