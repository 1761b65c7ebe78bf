"""PURE: what this node would do for a pod, in order, each line with where its YAML asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from ..kube.objects.apps import Deployment
from ..kube.objects.containers import Container, LifecycleHandler, Probe
from ..kube.objects.pods import Pod, PodSpec
from ..kube.objects.volumes import Volume, VolumeProjection
from ..kube.quantity import human_bytes, whole
from ..kube.validate.apps import TEMPLATE, pod_of
from ..kube.validate.volumes import FILLED, kind_of
from ..plan.cgroup.resources import cpu_weight
from .admission import Allocatable, Neighbour, host_ports, refusal
from .deployments.plan import bounds
from .plan.observed import KINDS
from .plan.probes import probe_of
from .plan.restart import RESTART_ALL, is_sidecar, policy_of
from .qos import PERIOD_US, cgroup_path, container_limits, has_own, oom_score_adj, pod_limits, pod_requests, qos_class

PULLS = {"Always": "ask the registry each time", "IfNotPresent": "pull if it is not here", "Never": "must be here"}


class Line(NamedTuple):
    """part: admission, images, cgroup, volumes, start, probes, stop. pointer: the field that asks; "" for none."""

    part: str
    text: str
    pointer: str


def explain_pod(pod: Pod, node: Allocatable, uid: str = "UID") -> list[Line]:
    """For a pod that is valid, with its defaults, on a node where nothing else runs."""
    assert pod.spec is not None
    spec = pod.spec
    return [
        *_admission(spec, node),
        *_images(spec),
        *_cgroups(spec, node, uid),
        *_volumes(spec),
        *_start(spec),
        *_probes(spec),
        *_stop(spec),
    ]


def explain_deployment(found: Deployment, node: Allocatable) -> list[Line]:
    """One that is valid: how its pods come and go, and then what each of them is. Pods that find no room wait."""
    spec, pod = found.spec, pod_of(found)
    assert pod.spec is not None
    replicas = 1 if spec.replicas is None else spec.replicas
    others: list[Neighbour] = []
    no = None
    while len(others) < replicas and (no := refusal(pod.spec, node, others)) is None:
        others.append(Neighbour(f"the {len(others) + 1}. of them", pod.spec))
    lines = [Line("deployment", f"{replicas} pods NAME-HASH-SUFFIX, kept so whatever ends", "/spec/replicas")]
    if no is not None:
        text = f"{len(others)} of {replicas} fit, the others wait: {no[0]}: {no[1]}"
        lines.append(Line("deployment", text, "/spec/replicas"))
    if spec.strategy is not None and spec.strategy.type == "Recreate":
        lines.append(Line("deployment", "another template: all end, and then the new ones start", "/spec/strategy"))
    else:
        surge, missing = bounds(found, replicas)
        text = f"another template: {surge} more than {replicas} at a time, {replicas - missing} of them available"
        lines.append(Line("deployment", text, "/spec/strategy"))
    patience = spec.minReadySeconds or 0
    ready = f"ready for {patience} s" if patience else "ready"
    deadline = spec.progressDeadlineSeconds or 600
    text = f"a pod is available once it is {ready}; without any progress for {deadline} s it is told as stuck"
    lines.append(Line("deployment", text, "/spec/minReadySeconds" if patience else "/spec/progressDeadlineSeconds"))
    each = explain_pod(pod, node)
    return lines + [line._replace(pointer=f"{TEMPLATE}{line.pointer}" if line.pointer else "") for line in each]


def _all(spec: PodSpec) -> Iterator[tuple[Container, str]]:
    for field in ("initContainers", "containers"):
        for i, c in enumerate(getattr(spec, field) or ()):
            yield c, f"/spec/{field}/{i}"


def _admission(spec: PodSpec, node: Allocatable) -> Iterator[Line]:
    wanted = pod_requests(spec)
    cpu, memory = wanted.get("cpu", 0), wanted.get("memory", 0)
    no = refusal(spec, node, ())
    at = next((f"{at}/resources" for c, at in _all(spec) if c.resources and c.resources.requests), "")
    at = "/spec/resources" if has_own(spec) else at
    if no is not None:
        yield Line("admission", f"refused, {no[0]}: {no[1]}", at)
    else:
        fits = f"{cpu}m of {node.cpu}m cpu, {human_bytes(memory)} of {human_bytes(node.memory)} memory"
        yield Line("admission", f"fits: {fits}", at)
    for protocol, address, port in host_ports(spec):
        where = next(
            f"{at}/ports/{i}" for c, at in _all(spec) for i, p in enumerate(c.ports or ()) if p.hostPort == port
        )
        yield Line("admission", f"takes {port}/{protocol} of the node{f' on {address}' if address else ''}", where)


def _images(spec: PodSpec) -> Iterator[Line]:
    seen = set()
    for c, at in _all(spec):
        if c.image in seen:
            continue
        seen.add(c.image)
        given = PULLS[c.imagePullPolicy or "Always"]
        yield Line("images", f"{c.image}: {c.imagePullPolicy}, {given}", f"{at}/image")
    for i, volume in enumerate(spec.volumes or ()):
        if (image := volume.image) is not None:
            text = f"{image.reference}: {image.pullPolicy}, {PULLS[image.pullPolicy or 'Always']}, of a volume"
            yield Line("images", text, f"/spec/volumes/{i}/image/reference")


def _cgroups(spec: PodSpec, node: Allocatable, uid: str) -> Iterator[Line]:
    qos = qos_class(spec)
    found = pod_limits(spec)
    path = cgroup_path(uid, qos)
    text = f"{path}  {qos}: {_limits(found.shares, found.quota, found.memory)}"
    yield Line("cgroup", text, "/spec/resources" if has_own(spec) else "/spec/containers")
    for c, at in _all(spec):
        own = container_limits(c, spec)
        score = oom_score_adj(c, spec, node.memory)
        text = f"{path}/{c.name}  {_limits(own.shares, own.quota, own.memory)}, oom_score_adj {score}"
        yield Line("cgroup", text, f"{at}/resources")
        for i, one in enumerate(c.resizePolicy or ()):
            how = "by a restart" if one.restartPolicy == "RestartContainer" else "while it runs"
            yield Line("cgroup", f"{c.name}: other {one.resourceName} {how}", f"{at}/resizePolicy/{i}")


def _limits(shares: int, quota: int, memory: int | None) -> str:
    words = [f"cpu.weight {cpu_weight(shares)}"]
    if quota:
        words.append(f"cpu.max {quota} {PERIOD_US}")
    words.append(f"memory.max {memory}" if memory is not None else "no memory limit")
    return ", ".join(words)


def _volumes(spec: PodSpec) -> Iterator[Line]:
    fixed = {v.name for v in spec.volumes or () if kind_of(v) in (*FILLED, "image")}
    for i, volume in enumerate(spec.volumes or ()):
        kind = kind_of(volume)
        yield Line("volumes", f"{volume.name}: {_told(volume, kind)}", f"/spec/volumes/{i}/{kind}")
    for c, at in _all(spec):
        for i, mount in enumerate(c.volumeMounts or ()):
            how = "read-only" if mount.readOnly or mount.name in fixed else "read-write"
            path = f"/{sub}" if (sub := mount.subPath or mount.subPathExpr) else ""
            text = f"{c.name}: {mount.name}{path} at {mount.mountPath}, {how}"
            if mount.mountPropagation not in (None, "None"):
                text += f", {mount.mountPropagation}"
            yield Line("volumes", text, f"{at}/volumeMounts/{i}")
    group = spec.securityContext.fsGroup if spec.securityContext else None
    if group is not None and spec.volumes:
        yield Line("volumes", f"all but hostPaths: group {group}, for it to write", "/spec/securityContext/fsGroup")


def _told(volume: Volume, kind: str) -> str:
    if (empty := volume.emptyDir) is not None:
        limit = f", at most {human_bytes(whole(empty.sizeLimit))}" if empty.sizeLimit is not None else ""
        limit += ", or it is evicted" if limit and not empty.medium else ""
        where = " in memory" if empty.medium else ""
        return f"emptyDir{where}{limit}, {0o777 if empty.mode is None else empty.mode:04o}, gone with the pod"
    if volume.hostPath is not None:
        return f"hostPath {volume.hostPath.path}{f', {volume.hostPath.type}' if volume.hostPath.type else ''}"
    if (config := volume.configMap) is not None:
        return f"configMap {config.name}, mode {config.defaultMode or 0:04o}{_optional(config.optional)}"
    if (secret := volume.secret) is not None:
        return f"secret {secret.secretName}, mode {secret.defaultMode or 0:04o}{_optional(secret.optional)}"
    if volume.downwardAPI is not None:
        return f"downwardAPI, {len(volume.downwardAPI.items or ())} files"
    if volume.image is not None:
        return f"image {volume.image.reference}, nothing of it can be written"
    if volume.projected is not None:
        named = [_told_source(one) for one in volume.projected.sources or ()]
        return f"projected of {', '.join(named)}" if named else "projected of nothing"
    return kind


def _told_source(one: VolumeProjection) -> str:
    if one.configMap is not None:
        return f"configMap {one.configMap.name}{_optional(one.configMap.optional)}"
    if one.secret is not None:
        return f"secret {one.secret.name}{_optional(one.secret.optional)}"
    return "downwardAPI"


def _optional(optional: bool | None) -> str:
    return " if it is there" if optional else ""


def _start(spec: PodSpec) -> Iterator[Line]:
    network = "the host's network" if spec.hostNetwork else "a network of its own"
    yield Line("start", f"sandbox: {network}", "/spec/hostNetwork" if spec.hostNetwork else "/spec")
    yield from _names(spec)
    yield from _identities(spec)
    for i, c in enumerate(spec.initContainers or ()):
        at = f"/spec/initContainers/{i}"
        if is_sidecar(c):
            then = "the next waits for its startup probe" if c.startupProbe else "the next waits till it has started"
            yield Line("start", f"sidecar {c.name}, {then}; always run again", at)
        else:
            yield Line("start", f"init {c.name}, to its success; {_again(c, spec, init=True)}", at)
    for i, c in enumerate(spec.containers):
        after = ", then its postStart" if c.lifecycle and c.lifecycle.postStart else ""
        yield Line("start", f"{c.name}{after}; {_again(c, spec, init=False)}", f"/spec/containers/{i}")


def _names(spec: PodSpec) -> Iterator[Line]:
    if spec.hostnameOverride:
        text = f"host name {spec.hostnameOverride}, whatever the pod's name and domain are"
        yield Line("start", text, "/spec/hostnameOverride")
    elif spec.setHostnameAsFQDN and spec.subdomain:
        text = f"host name {spec.hostname or 'NAME'}.{spec.subdomain}.NAMESPACE.svc.DOMAIN, if that is 64 long at most"
        yield Line("start", text, "/spec/setHostnameAsFQDN")


def _identities(spec: PodSpec) -> Iterator[Line]:
    if spec.hostUsers is False:
        text = "users of its own: 65536 of the node's that nobody else has; its root is nobody on the node"
        yield Line("start", text, "/spec/hostUsers")
    context = spec.securityContext
    if context is not None and context.supplementalGroupsPolicy == "Strict":
        text = "groups: those that are named here; the image's /etc/group gives none"
        yield Line("start", text, "/spec/securityContext/supplementalGroupsPolicy")
    for c, at in _all(spec):
        if c.securityContext is not None and c.securityContext.procMount == "Unmasked":
            text = f"{c.name}: all of /proc, nothing of it masked or read-only"
            yield Line("start", text, f"{at}/securityContext/procMount")


def _again(c: Container, spec: PodSpec, *, init: bool) -> str:
    words = {
        "Always": "run again whenever it ends, after 0, 10, 20 … 300 s",
        "OnFailure": "run again when it fails, after 0, 10, 20 … 300 s",
        "Never": "not run again",
    }
    text = words[policy_of(c, spec, init=init)]
    if c.restartPolicyRules:
        text += f", but for {len(c.restartPolicyRules)} rules by exit code"
        if any(rule.action == RESTART_ALL for rule in c.restartPolicyRules):
            text += ", some of which restart all containers"
    return text


def _probes(spec: PodSpec) -> Iterator[Line]:
    for c, at in _all(spec):
        for kind in KINDS:
            probe = probe_of(c, kind)
            if probe is None:
                continue
            what = {
                "startup": "others wait for it; restart",
                "liveness": "restart",
                "readiness": "not ready",
            }[kind]
            first = f", first after {probe.initialDelaySeconds} s" if probe.initialDelaySeconds else ""
            times = f"every {probe.periodSeconds} s{first}, {probe.timeoutSeconds} s each"
            text = f"{c.name} {kind}: {_action(probe)} {times}; {what} after {probe.failureThreshold} failures"
            yield Line("probes", text, f"{at}/{kind}Probe")


def _action(found: Probe | LifecycleHandler) -> str:
    if found.exec is not None:
        return f"exec {' '.join(found.exec.command or ())}"
    if found.httpGet is not None:
        http = found.httpGet
        return f"GET {(http.scheme or 'HTTP').lower()}://{http.host or 'POD'}:{http.port}{http.path}"
    if found.tcpSocket is not None:
        return f"connect {found.tcpSocket.host or 'POD'}:{found.tcpSocket.port}"
    if isinstance(found, Probe) and found.grpc is not None:
        return f"grpc health check :{found.grpc.port}"
    sleep = found.sleep if isinstance(found, LifecycleHandler) else None
    return f"sleep {sleep.seconds} s" if sleep is not None else "nothing"


def _stop(spec: PodSpec) -> Iterator[Line]:
    grace = spec.terminationGracePeriodSeconds
    at = "/spec/terminationGracePeriodSeconds"
    yield Line("stop", f"all within {grace} s, preStop included; who is left is killed then", at)
    for i, c in enumerate(spec.containers):
        yield Line("stop", f"{c.name}: {_pre_stop(c)}its stop signal", f"/spec/containers/{i}")
    found = list(enumerate(spec.initContainers or ()))
    for i, c in reversed(found):
        if is_sidecar(c):
            yield Line("stop", f"then sidecar {c.name}: {_pre_stop(c)}its stop signal", f"/spec/initContainers/{i}")


def _pre_stop(c: Container) -> str:
    handler = c.lifecycle.preStop if c.lifecycle else None
    return f"preStop ({_action(handler)}), then " if handler else ""


def as_text(lines: list[Line], place: Callable[[str], str]) -> Iterator[str]:
    """place: of a pointer, FILE:LINE."""
    width = max([len(line.text) for line in lines if len(line.text) <= 100], default=0)
    part = ""
    for line in lines:
        if line.part != part:
            part = line.part
            yield part
        where = place(line.pointer) if line.pointer else ""
        yield f"  {line.text.ljust(width)}  {where}".rstrip()
