"""ContainerConfig, PodSandboxConfig and the image's config → config.json, a room a file. Pure: what it needs to know of
the host is in Node, of the image's users in User.

What the image says is untrusted and stays in the container: its labels and annotations go nowhere, and its volumes are
directories of its own root. What is not supported is refused by name, never passed over.
"""

from __future__ import annotations

from ... import SPEC_VERSION
from .devices import plan_devices
from .draft import Draft, refuse
from .mounts import plan_mounts
from .namespaces import plan_namespaces
from .process import plan_process
from .resources import plan_resources
from .security import plan_security

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .layers import ImageMount
    from .node import Node
    from .users import User

PREFIX = "io.kubernetes.cri."


def plan_container(
    config: Any,
    pod: Any,
    image: Any,
    user: User,
    sandbox: Any,
    node: Node,
    *,
    id: str,
    target: str | None = None,
    images: dict[int, ImageMount] | None = None,
) -> dict[str, Any]:
    """config.json of a container. InvalidArgument names the field that can't be had.

    config, pod: the messages of the request. image: its ImageConfig. sandbox: what the pod has. target: the path of the
    PID namespace of the container that namespace_options.target_id names. images: index in config.mounts -> the
    directories of the image that is mounted there."""
    made = draft_container(config, pod, image, user, sandbox, node, id=id, target=target, images=images)
    return made.doc


def draft_container(
    config: Any,
    pod: Any,
    image: Any,
    user: User,
    sandbox: Any,
    node: Node,
    *,
    id: str,
    target: str | None = None,
    images: dict[int, ImageMount] | None = None,
) -> Draft:
    """The same, with where each part comes from."""
    _check(config)
    d = Draft()
    context = config.linux.security_context
    d.doc = {
        "ociVersion": SPEC_VERSION,
        "root": {"path": "rootfs", "readonly": context.readonly_rootfs},
        "annotations": _annotations(config, pod, sandbox),
        "linux": {},
    }
    d.note("/root/readonly", "linux.security_context.readonly_rootfs")
    d.note("/root/path", "image")
    plan_process(d, config, pod, image, user, sandbox, node)
    plan_namespaces(d, config, pod, sandbox, target, id=id)
    plan_mounts(d, config, sandbox, node, images or {})
    plan_resources(d, config, node)
    plan_devices(d, config, node)
    plan_security(d, config, sandbox, node)
    if config.CDI_devices:
        from .cdi import plan_cdi

        plan_cdi(d, node.cdi)
    return d


def _check(config: Any) -> None:
    """What would be missed in silence."""
    if config.HasField("windows"):
        refuse("windows", "this is a Linux node")
    if config.stdin_once and not config.stdin:
        refuse("stdin_once", "needs stdin")


def _annotations(config: Any, pod: Any, sandbox: Any) -> dict[str, str]:
    """Who it is, for tools on the node that read a container's config.json. Neither the request's annotations nor the
    image's labels are here: some mean something to a runtime (CVE-2024-3154, CVE-2026-53488)."""
    return {
        PREFIX + "container-type": "container",
        PREFIX + "sandbox-id": sandbox.id,
        PREFIX + "sandbox-name": pod.metadata.name,
        PREFIX + "sandbox-namespace": pod.metadata.namespace,
        PREFIX + "sandbox-uid": pod.metadata.uid,
        PREFIX + "container-name": config.metadata.name,
        PREFIX + "image-name": config.image.user_specified_image or config.image.image,
    }


__all__ = ["Draft", "draft_container", "plan_container"]
