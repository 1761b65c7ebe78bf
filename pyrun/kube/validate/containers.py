"""Containers of the three kinds: init (sidecars among them), app, ephemeral."""

from __future__ import annotations

from collections.abc import Iterator

from ..objects.containers import Container, EnvFromSource, EnvVar, EphemeralContainer
from ..objects.pods import PodSpec
from ..strict import Fault
from .fields import field_ref_fault, resource_ref_fault
from .names import (
    check,
    config_key_fault,
    env_name_fault,
    ip_fault,
    label_fault,
    number_range,
    one_of,
    port_name_fault,
    relative_path_fault,
    subdomain_fault,
)
from .probes import refuse_probes, validate_lifecycle, validate_probes
from .resources import validate_resources
from .security import validate_security
from .volumes import validate_mounts

MOST_RULES, MOST_CODES = 20, 255
POLICIES = ("Always", "OnFailure", "Never")
AnyContainer = Container | EphemeralContainer


def validate_containers(spec: PodSpec, grace: int) -> Iterator[Fault]:
    """All of a pod's. grace: its terminationGracePeriodSeconds."""
    if not spec.containers:
        yield Fault("/spec/containers", "has no container; a pod needs one at least")
    names: dict[str, str] = {}
    for field in ("initContainers", "containers", "ephemeralContainers"):
        found: list[AnyContainer] = getattr(spec, field) or []
        for i, c in enumerate(found):
            at = f"/spec/{field}/{i}"
            if c.name in names:
                yield Fault(f"{at}/name", f"{c.name!r} is the name of {names[c.name]}")
            names.setdefault(c.name, at)
            yield from _any(c, spec, at)
            if isinstance(c, EphemeralContainer):
                yield from _ephemeral(c, spec, at)
            elif field == "initContainers":
                yield from _init(c, grace, at)
            else:
                yield from _restarts(c, at)
                yield from validate_probes(c, grace, at)
                yield from validate_lifecycle(c.lifecycle, c, grace, f"{at}/lifecycle")
    yield from _host_ports(spec)


def _any(c: AnyContainer, spec: PodSpec, at: str) -> Iterator[Fault]:
    yield from check(label_fault(c.name), f"{at}/name")
    if not c.image:
        yield Fault(f"{at}/image", "is missing")
    elif c.image != c.image.strip():
        yield Fault(f"{at}/image", "must not begin or end with white space")
    yield from one_of(c.imagePullPolicy, ("Always", "IfNotPresent", "Never"), f"{at}/imagePullPolicy")
    policies = ("File", "FallbackToLogsOnError")
    yield from one_of(c.terminationMessagePolicy, policies, f"{at}/terminationMessagePolicy")
    yield from _variables(c.env, spec, at)
    yield from _variables_from(c.envFrom, at)
    yield from validate_mounts(c, spec, at)
    yield from validate_security(c.securityContext, spec, f"{at}/securityContext")
    if c.lifecycle is not None and c.lifecycle.stopSignal is not None and spec.os is None:
        yield Fault(f"{at}/lifecycle/stopSignal", "needs the pod's os: {name: linux}, as signals are a system's")
    if not isinstance(c, EphemeralContainer):
        yield from _ports(c, spec, at)
        yield from validate_resources(c.resources, f"{at}/resources")
        yield from _resize_policies(c, spec, at)
        claims = {claim.name for claim in spec.resourceClaims or ()}
        for i, claim in enumerate((c.resources and c.resources.claims) or ()):
            if claim.name not in claims:
                yield Fault(f"{at}/resources/claims/{i}/name", f"the pod has no resourceClaim {claim.name!r}")


def _resize_policies(c: Container, spec: PodSpec, at: str) -> Iterator[Fault]:
    names: set[str] = set()
    for i, policy in enumerate(c.resizePolicy or ()):
        here = f"{at}/resizePolicy/{i}"
        yield from one_of(policy.resourceName, ("cpu", "memory"), f"{here}/resourceName")
        if policy.resourceName in names:
            yield Fault(f"{here}/resourceName", f"{policy.resourceName!r} is there twice")
        names.add(policy.resourceName)
        yield from one_of(policy.restartPolicy, ("NotRequired", "RestartContainer"), f"{here}/restartPolicy")
        if policy.restartPolicy == "RestartContainer" and spec.restartPolicy == "Never":
            yield Fault(f"{here}/restartPolicy", "must be NotRequired in a pod whose restartPolicy is Never")


def _init(c: Container, grace: int, at: str) -> Iterator[Fault]:
    yield from _restarts(c, at)
    if c.restartPolicy == "Always":  # a sidecar
        yield from validate_probes(c, grace, at)
        yield from validate_lifecycle(c.lifecycle, c, grace, f"{at}/lifecycle")
    else:
        yield from refuse_probes(c, "an init container without restartPolicy: Always", at)


def _restarts(c: Container, at: str) -> Iterator[Fault]:
    """KEP-5307: a container's own policy and its rules."""
    yield from one_of(c.restartPolicy, POLICIES, f"{at}/restartPolicy")
    rules = c.restartPolicyRules or []
    here = f"{at}/restartPolicyRules"
    if rules and c.restartPolicy is None:
        yield Fault(f"{at}/restartPolicy", "is missing: rules need the container's own policy")
    if len(rules) > MOST_RULES:
        yield Fault(here, f"has {len(rules)} rules; {MOST_RULES} are the most")
    for i, rule in enumerate(rules):
        yield from one_of(rule.action, ("Restart", "RestartAllContainers"), f"{here}/{i}/action")
        codes = rule.exitCodes
        if codes is None:
            yield Fault(f"{here}/{i}/exitCodes", "is missing")
            continue
        yield from one_of(codes.operator, ("In", "NotIn"), f"{here}/{i}/exitCodes/operator")
        if len(codes.values or ()) > MOST_CODES:
            yield Fault(f"{here}/{i}/exitCodes/values", f"has {len(codes.values or ())}; {MOST_CODES} are the most")


def _ephemeral(c: EphemeralContainer, spec: PodSpec, at: str) -> Iterator[Fault]:
    kind = "an ephemeral container"
    yield from refuse_probes(c, kind, at)
    for field in ("ports", "resources", "resizePolicy", "restartPolicy", "restartPolicyRules"):
        value = getattr(c, field)
        if value is not None and value != [] and not (field == "resources" and not (value.limits or value.requests)):
            yield Fault(f"{at}/{field}", f"is not for {kind}")
    for i, mount in enumerate(c.volumeMounts or ()):
        for field in ("subPath", "subPathExpr"):
            if getattr(mount, field):
                yield Fault(f"{at}/volumeMounts/{i}/{field}", f"is not for {kind}")
    others = {o.name for o in [*(spec.containers or ()), *(spec.initContainers or ())]}
    if c.targetContainerName and c.targetContainerName not in others:
        yield Fault(f"{at}/targetContainerName", f"the pod has no container {c.targetContainerName!r}")


def _variables(env: list[EnvVar] | None, spec: PodSpec, at: str) -> Iterator[Fault]:
    for i, variable in enumerate(env or ()):
        here = f"{at}/env/{i}"
        yield from check(env_name_fault(variable.name), f"{here}/name")
        source = variable.valueFrom
        if source is None:
            continue
        if variable.value:
            yield Fault(f"{here}/valueFrom", "must not be set beside value")
        set_ = [name for name in source.__struct_fields__ if getattr(source, name) is not None]
        if not set_:
            yield Fault(f"{here}/valueFrom", f"must have one of {', '.join(source.__struct_fields__)}")
        for other in set_[1:]:
            yield Fault(f"{here}/valueFrom/{other}", f"must not be set beside {set_[0]}")
        if source.fieldRef is not None:
            yield from check(field_ref_fault(source.fieldRef, of_file=False), f"{here}/valueFrom/fieldRef/fieldPath")
        if source.resourceFieldRef is not None:
            fault = resource_ref_fault(source.resourceFieldRef, of_file=False)
            yield from check(fault, f"{here}/valueFrom/resourceFieldRef")
        for name in ("configMapKeyRef", "secretKeyRef"):
            if (ref := getattr(source, name)) is not None:
                yield from _reference(ref.name, f"{here}/valueFrom/{name}/name")
                yield from check(config_key_fault(ref.key), f"{here}/valueFrom/{name}/key")
        if (file := source.fileKeyRef) is not None:
            if file.volumeName not in {v.name for v in spec.volumes or ()}:
                yield Fault(f"{here}/valueFrom/fileKeyRef/volumeName", f"the pod has no volume {file.volumeName!r}")
            yield from check(env_name_fault(file.key), f"{here}/valueFrom/fileKeyRef/key")
            yield from check(relative_path_fault(file.path), f"{here}/valueFrom/fileKeyRef/path")


def _variables_from(found: list[EnvFromSource] | None, at: str) -> Iterator[Fault]:
    for i, source in enumerate(found or ()):
        here = f"{at}/envFrom/{i}"
        if (source.configMapRef is None) == (source.secretRef is None):
            yield Fault(here, "must have one of configMapRef and secretRef")
        if source.prefix:
            yield from check(env_name_fault(source.prefix), f"{here}/prefix")
        for name in ("configMapRef", "secretRef"):
            if (ref := getattr(source, name)) is not None:
                yield from _reference(ref.name, f"{here}/{name}/name")


def _reference(name: str | None, at: str) -> Iterator[Fault]:
    yield from check(subdomain_fault(name) if name else "is missing", at)


def _ports(c: Container, spec: PodSpec, at: str) -> Iterator[Fault]:
    names = set()
    for i, port in enumerate(c.ports or ()):
        here = f"{at}/ports/{i}"
        yield from number_range(port.containerPort, 1, 65535, f"{here}/containerPort")
        if port.hostPort:
            yield from number_range(port.hostPort, 1, 65535, f"{here}/hostPort")
            if spec.hostNetwork and port.hostPort != port.containerPort:
                yield Fault(f"{here}/hostPort", "must equal containerPort with hostNetwork")
        yield from one_of(port.protocol, ("TCP", "UDP", "SCTP"), f"{here}/protocol")
        if port.hostIP:
            yield from check(ip_fault(port.hostIP), f"{here}/hostIP")
        if port.name:
            yield from check(port_name_fault(port.name), f"{here}/name")
            if port.name in names:
                yield Fault(f"{here}/name", f"{port.name!r} is the name of another port")
            names.add(port.name)


def _host_ports(spec: PodSpec) -> Iterator[Fault]:
    """Of app containers and sidecars, which run at the same time."""
    taken: dict[tuple[str, str, int], str] = {}
    sidecars = [(f"/spec/initContainers/{i}", c) for i, c in enumerate(spec.initContainers or ())]
    apps = [(f"/spec/containers/{i}", c) for i, c in enumerate(spec.containers or ())]
    for at, c in [*((a, c) for a, c in sidecars if c.restartPolicy == "Always"), *apps]:
        for i, port in enumerate(c.ports or ()):
            if not port.hostPort:
                continue
            key = (port.protocol or "TCP", port.hostIP or "", port.hostPort)
            if key in taken:
                yield Fault(f"{at}/ports/{i}/hostPort", f"{port.hostPort}/{key[0]} is taken by {taken[key]}")
            taken.setdefault(key, f"{at}/ports/{i}")
