"""PURE: a container of a pod → the CRI's ContainerConfig. Source: kubernetes pkg/kubelet/kuberuntime.

env: resolved before (variables.py), as are mounts. Refused is here only what needs the image to be known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ... import cri_api as v1
from ...errors import PyrunError
from ...kube.objects.containers import Container, EphemeralContainer, SecurityContext
from ...kube.objects.pods import Pod, PodSecurityContext, PodSpec
from ..expansion import expand
from ..qos import PERIOD_US, container_limits, oom_score_adj
from .sandbox_config import CONTAINER, NAME, NAMESPACE, UID, namespaces, set_selinux

MASKED = (
    "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    "/sys/devices/virtual/powercap",
)  # fmt: skip
READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


class ConfigFault(PyrunError):
    """A container can't be made as the pod says: CreateContainerConfigError, tried again."""


class Made(NamedTuple):
    """What a container is made of. image: (id, its user). memory: the node's, in bytes. mounts: v1.Mount. ids: the
    first of the pod's own users, where it has any."""

    uid: str
    attempt: int
    image: tuple[str, str]
    env: Mapping[str, str]
    mounts: Sequence[Any]
    memory: int
    ids: int = 0


def container_config(pod: Pod, c: Container | EphemeralContainer, made: Made, target: str = "") -> Any:
    """target: the id of the container whose PID namespace an ephemeral one joins."""
    assert pod.metadata is not None and pod.spec is not None
    config = v1.ContainerConfig(
        metadata=v1.ContainerMetadata(name=c.name, attempt=made.attempt),
        image=v1.ImageSpec(image=made.image[0], user_specified_image=c.image or ""),
        command=[expand(word, made.env) for word in c.command or ()],
        args=[expand(word, made.env) for word in c.args or ()],
        working_dir=c.workingDir or "",
        envs=[v1.KeyValue(key=key, value=value.encode()) for key, value in made.env.items()],
        mounts=made.mounts,
        labels={
            CONTAINER: c.name,
            NAME: pod.metadata.name or "",
            NAMESPACE: pod.metadata.namespace or "default",
            UID: made.uid,
        },
        annotations={
            "io.kubernetes.container.restartCount": str(made.attempt),
            "io.kubernetes.container.terminationMessagePath": c.terminationMessagePath or "",
            "io.kubernetes.container.terminationMessagePolicy": c.terminationMessagePolicy or "",
            "io.kubernetes.pod.terminationGracePeriod": str(pod.spec.terminationGracePeriodSeconds),
        },
        log_path=f"{c.name}/{made.attempt}.log",
        stdin=bool(c.stdin),
        stdin_once=bool(c.stdinOnce),
        tty=bool(c.tty),
    )
    if c.lifecycle is not None and c.lifecycle.stopSignal:
        config.stop_signal = v1.Signal.Value(
            "SIGNAL_" + c.lifecycle.stopSignal.replace("+", "PLUS").replace("-", "MINUS")
        )
    if isinstance(c, Container):
        _resources(config.linux.resources, c, pod.spec, made.memory)
    _context(config.linux.security_context, pod.spec, c, made)
    if target:
        config.linux.security_context.namespace_options.pid = v1.TARGET
        config.linux.security_context.namespace_options.target_id = target
    return config


def _resources(found: Any, c: Container, spec: PodSpec, memory: int) -> None:
    limits = container_limits(c, spec)
    found.cpu_period, found.cpu_quota, found.cpu_shares = PERIOD_US, limits.quota, limits.shares
    found.memory_limit_in_bytes = limits.memory or 0
    found.oom_score_adj = oom_score_adj(c, spec, memory)
    found.unified["memory.oom.group"] = "1"


def _context(found: Any, spec: PodSpec, c: Container | EphemeralContainer, made: Made) -> None:
    user = made.image[1]
    pod, own = spec.securityContext or PodSecurityContext(), c.securityContext or SecurityContext()
    found.namespace_options.CopyFrom(namespaces(spec, made.ids))
    found.privileged = bool(own.privileged)
    found.readonly_rootfs = bool(own.readOnlyRootFilesystem)
    found.no_new_privs = own.allowPrivilegeEscalation is False
    found.supplemental_groups.extend(pod.supplementalGroups or ())
    found.supplemental_groups_policy = v1.SupplementalGroupsPolicy.Value(pod.supplementalGroupsPolicy or "Merge")
    if pod.fsGroup is not None and pod.fsGroup not in found.supplemental_groups:
        found.supplemental_groups.append(pod.fsGroup)
    uid = own.runAsUser if own.runAsUser is not None else pod.runAsUser
    gid = own.runAsGroup if own.runAsGroup is not None else pod.runAsGroup
    strict = own.runAsNonRoot if own.runAsNonRoot is not None else pod.runAsNonRoot
    check_user(c.name, uid, user, strict=bool(strict))
    if uid is not None:
        found.run_as_user.value = uid
    elif user and gid is not None:  # the CRI wants a user where there is a group
        _image_user(found, user.partition(":")[0])
    elif gid is not None:
        found.run_as_user.value = 0
    if gid is not None:
        found.run_as_group.value = gid
    if own.capabilities is not None:
        found.capabilities.add_capabilities.extend(own.capabilities.add or ())
        found.capabilities.drop_capabilities.extend(own.capabilities.drop or ())
    if not own.privileged and own.procMount != "Unmasked":
        found.masked_paths.extend(MASKED)
        found.readonly_paths.extend(READONLY)
    set_selinux(found.selinux_options, own.seLinuxOptions or pod.seLinuxOptions)
    if (seccomp := own.seccompProfile or pod.seccompProfile) is not None:
        _profile(found.seccomp, seccomp)
    if (apparmor := own.appArmorProfile or pod.appArmorProfile) is not None:
        _profile(found.apparmor, apparmor)


def _image_user(found: Any, user: str) -> None:
    if user.isascii() and user.isdigit():
        found.run_as_user.value = int(user)
    else:
        found.run_as_username = user


def _profile(found: Any, given: Any) -> None:
    found.profile_type = v1.SecurityProfile.ProfileType.Value(given.type)
    if given.type == "Localhost":
        if not given.localhostProfile:  # CVE-2023-2431: an empty name must never mean no profile
            raise ConfigFault("localhostProfile is missing for a profile of type Localhost")
        found.localhost_ref = given.localhostProfile


def check_user(name: str, uid: int | None, image: str, *, strict: bool) -> None:
    """runAsNonRoot, at every start (CVE-2019-11245). image: USER of the image's config."""
    if not strict:
        return
    if uid is not None:
        if uid == 0:
            raise ConfigFault(f"container {name}: runAsNonRoot is true and runAsUser is 0")
        return
    user = image.partition(":")[0]
    if not user or (user.isascii() and user.isdigit() and int(user) == 0):
        raise ConfigFault(
            f"container {name}: runAsNonRoot is true, and its image runs as root", hint="set runAsUser to another"
        )
    if not (user.isascii() and user.isdigit()):
        raise ConfigFault(
            f"container {name}: runAsNonRoot is true, and who {user!r} of the image is can't be known before it runs",
            hint="set runAsUser to that user's number",
        )
