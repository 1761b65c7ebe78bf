"""Types of Kubernetes: containers, their probes, variables and limits.

Generated from lightkube-models 1.37.0.8 by `make kube-objects`; do not edit.
"""

from __future__ import annotations

from .base import IntOrString, Object, Quantity
from .volumes import ObjectFieldSelector, ResourceFieldSelector


class ConfigMapKeySelector(Object):
    key: str
    name: str | None = None
    optional: bool | None = None


class FileKeySelector(Object):
    key: str
    path: str
    volumeName: str
    optional: bool | None = None


class SecretKeySelector(Object):
    key: str
    name: str | None = None
    optional: bool | None = None


class EnvVarSource(Object):
    configMapKeyRef: ConfigMapKeySelector | None = None
    fieldRef: ObjectFieldSelector | None = None
    fileKeyRef: FileKeySelector | None = None
    resourceFieldRef: ResourceFieldSelector | None = None
    secretKeyRef: SecretKeySelector | None = None


class EnvVar(Object):
    name: str
    value: str | None = None
    valueFrom: EnvVarSource | None = None


class ConfigMapEnvSource(Object):
    name: str | None = None
    optional: bool | None = None


class SecretEnvSource(Object):
    name: str | None = None
    optional: bool | None = None


class EnvFromSource(Object):
    configMapRef: ConfigMapEnvSource | None = None
    prefix: str | None = None
    secretRef: SecretEnvSource | None = None


class ExecAction(Object):
    command: list[str] | None = None


class HTTPHeader(Object):
    name: str
    value: str


class HTTPGetAction(Object):
    port: IntOrString
    host: str | None = None
    httpHeaders: list[HTTPHeader] | None = None
    path: str | None = None
    protocol: str | None = None
    scheme: str | None = None


class SleepAction(Object):
    seconds: int


class TCPSocketAction(Object):
    port: IntOrString
    host: str | None = None


class LifecycleHandler(Object):
    exec: ExecAction | None = None
    httpGet: HTTPGetAction | None = None
    sleep: SleepAction | None = None
    tcpSocket: TCPSocketAction | None = None


class Lifecycle(Object):
    postStart: LifecycleHandler | None = None
    preStop: LifecycleHandler | None = None
    stopSignal: str | None = None


class GRPCAction(Object):
    port: int
    mode: str | None = None
    service: str | None = None


class Probe(Object):
    exec: ExecAction | None = None
    failureThreshold: int | None = None
    grpc: GRPCAction | None = None
    httpGet: HTTPGetAction | None = None
    initialDelaySeconds: int | None = None
    periodSeconds: int | None = None
    successThreshold: int | None = None
    tcpSocket: TCPSocketAction | None = None
    terminationGracePeriodSeconds: int | None = None
    timeoutSeconds: int | None = None


class ContainerPort(Object):
    containerPort: int
    hostIP: str | None = None
    hostPort: int | None = None
    name: str | None = None
    protocol: str | None = None


class ContainerResizePolicy(Object):
    resourceName: str
    restartPolicy: str


class ResourceClaim(Object):
    name: str
    request: str | None = None


class ResourceRequirements(Object):
    claims: list[ResourceClaim] | None = None
    limits: dict[str, Quantity] | None = None
    requests: dict[str, Quantity] | None = None


class ContainerRestartRuleOnExitCodes(Object):
    operator: str
    values: list[int] | None = None


class ContainerRestartRule(Object):
    action: str
    exitCodes: ContainerRestartRuleOnExitCodes | None = None


class AppArmorProfile(Object):
    type: str
    localhostProfile: str | None = None


class Capabilities(Object):
    add: list[str] | None = None
    drop: list[str] | None = None


class SELinuxOptions(Object):
    level: str | None = None
    role: str | None = None
    type: str | None = None
    user: str | None = None


class SeccompProfile(Object):
    type: str
    localhostProfile: str | None = None


class WindowsSecurityContextOptions(Object):
    gmsaCredentialSpec: str | None = None
    gmsaCredentialSpecName: str | None = None
    hostProcess: bool | None = None
    runAsUserName: str | None = None


class SecurityContext(Object):
    allowPrivilegeEscalation: bool | None = None
    appArmorProfile: AppArmorProfile | None = None
    capabilities: Capabilities | None = None
    privileged: bool | None = None
    procMount: str | None = None
    readOnlyRootFilesystem: bool | None = None
    runAsGroup: int | None = None
    runAsNonRoot: bool | None = None
    runAsUser: int | None = None
    seLinuxOptions: SELinuxOptions | None = None
    seccompProfile: SeccompProfile | None = None
    windowsOptions: WindowsSecurityContextOptions | None = None


class VolumeDevice(Object):
    devicePath: str
    name: str


class VolumeMount(Object):
    mountPath: str
    name: str
    bindMountOptions: list[str] | None = None
    mountPropagation: str | None = None
    readOnly: bool | None = None
    recursiveReadOnly: str | None = None
    subPath: str | None = None
    subPathExpr: str | None = None


class Container(Object):
    name: str
    args: list[str] | None = None
    command: list[str] | None = None
    env: list[EnvVar] | None = None
    envFrom: list[EnvFromSource] | None = None
    image: str | None = None
    imagePullPolicy: str | None = None
    lifecycle: Lifecycle | None = None
    livenessProbe: Probe | None = None
    ports: list[ContainerPort] | None = None
    readinessProbe: Probe | None = None
    resizePolicy: list[ContainerResizePolicy] | None = None
    resources: ResourceRequirements | None = None
    restartPolicy: str | None = None
    restartPolicyRules: list[ContainerRestartRule] | None = None
    securityContext: SecurityContext | None = None
    startupProbe: Probe | None = None
    stdin: bool | None = None
    stdinOnce: bool | None = None
    terminationMessagePath: str | None = None
    terminationMessagePolicy: str | None = None
    tty: bool | None = None
    volumeDevices: list[VolumeDevice] | None = None
    volumeMounts: list[VolumeMount] | None = None
    workingDir: str | None = None


class EphemeralContainer(Object):
    name: str
    args: list[str] | None = None
    command: list[str] | None = None
    env: list[EnvVar] | None = None
    envFrom: list[EnvFromSource] | None = None
    image: str | None = None
    imagePullPolicy: str | None = None
    lifecycle: Lifecycle | None = None
    livenessProbe: Probe | None = None
    ports: list[ContainerPort] | None = None
    readinessProbe: Probe | None = None
    resizePolicy: list[ContainerResizePolicy] | None = None
    resources: ResourceRequirements | None = None
    restartPolicy: str | None = None
    restartPolicyRules: list[ContainerRestartRule] | None = None
    securityContext: SecurityContext | None = None
    startupProbe: Probe | None = None
    stdin: bool | None = None
    stdinOnce: bool | None = None
    targetContainerName: str | None = None
    terminationMessagePath: str | None = None
    terminationMessagePolicy: str | None = None
    tty: bool | None = None
    volumeDevices: list[VolumeDevice] | None = None
    volumeMounts: list[VolumeMount] | None = None
    workingDir: str | None = None
