"""Pods and containers as the CRI's messages have them. Pure, but for what a pod and a container hold."""

from __future__ import annotations

from typing import Any

from .. import cri_api as v1
from ..pod.pod import Container, Pod


def pod_item(pod: Pod) -> Any:
    """An item of ListPodSandbox."""
    return v1.PodSandbox(**_pod_words(pod))


def pod_status(pod: Pod) -> Any:
    options = pod.config.linux.security_context.namespace_options
    status = v1.PodSandboxStatus(**_pod_words(pod))
    status.linux.namespaces.options.CopyFrom(options)
    if pod.ips:
        status.network.ip = pod.ips[0]
        status.network.additional_ips.extend(v1.PodIP(ip=ip) for ip in pod.ips[1:])
    else:
        status.network.SetInParent()
    return status


def _pod_words(pod: Pod) -> dict[str, Any]:
    """What a list and a status have alike."""
    return {
        "id": pod.id,
        "metadata": pod.config.metadata,
        "state": pod.state,
        "created_at": pod.record.created,
        "labels": dict(pod.config.labels),
        "annotations": dict(pod.config.annotations),
        "runtime_handler": pod.record.handler,
    }


def container_item(c: Container) -> Any:
    """An item of ListContainers."""
    return v1.Container(
        **_container_words(c),
        pod_sandbox_id=c.pod.id,
        image=v1.ImageSpec(image=c.config.image.image, user_specified_image=c.config.image.user_specified_image),
        image_ref=c.record.image_id,
    )


def _container_words(c: Container) -> dict[str, Any]:
    return {
        "id": c.id,
        "metadata": c.config.metadata,
        "state": c.state,
        "created_at": c.record.created,
        "image_id": c.record.image_id,
        "labels": dict(c.config.labels),
        "annotations": dict(c.config.annotations),
    }


def container_status(c: Container) -> Any:
    """message is the container's own: a kubelet shows it as what its program said. Warnings are in the verbose info."""
    r = c.record
    status = v1.ContainerStatus(
        **_container_words(c),
        started_at=r.started if r.state != "starting" else 0,
        finished_at=r.finished,
        exit_code=r.exit_code,
        image=v1.ImageSpec(image=r.image_ref, user_specified_image=c.config.image.user_specified_image),
        image_ref=r.image_digest or r.image_id,
        reason=r.reason,
        message=r.message,
        mounts=c.config.mounts,
        log_path=r.log_path,
    )
    for mount, image in zip(status.mounts, r.mounts, strict=False):  # a record of an older pyrun has none
        if image:
            mount.image.image_ref = image
    status.resources.linux.CopyFrom(c.config.linux.resources)
    if r.user:
        status.user.linux.uid, status.user.linux.gid = r.user["uid"], r.user["gid"]
        status.user.linux.supplemental_groups.extend(r.user["groups"])
    return status


def matches(labels: Any, wanted: Any) -> bool:
    """Whether all of a selector's labels are among these."""
    return all(labels.get(key) == value for key, value in wanted.items())
