"""A container is made out of an image, up to an init that waits for start; and is taken away again.

Both block, and run in a thread.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

from ..errors import FailedPrecondition, InvalidArgument, PyrunError
from ..image.merged import look_up
from ..image.reference import parse_reference
from .pod import Container
from .points import reached
from .records import CREATED, forget_record, make_directory, remove_directory
from .spec import (
    collect_node,
    log_path,
    log_rate,
    look_up_user,
    make_sources,
    make_writable,
    open_log,
    plan_container,
    plan_root,
    relabel_sources,
    stop_signal,
)
from .spec.layers import ImageMount
from .state import NodeState
from .supervisor import drop
from .undo import undoing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..image.store import Image
    from .sandbox import Sandbox


def make(pods: NodeState, c: Container) -> None:
    """Up to `created`: its init waits. PyrunError; unmake() takes away what there is then."""
    pod, config = c.pod, c.config
    sandbox = pod.sandbox
    if sandbox is None or pod.supervisor is None:
        raise FailedPrecondition(f"pod {pod.id[:13]} has no supervisor", hint="it has been stopped")
    pods.handler(pod).check(config, sandbox)
    c.record.log_path = log_path(config, pod.config)
    log_rate(config, pod.config)
    reached("create:begin")
    make_directory(c.directory)
    c.save()
    reached("create:record")
    image = pods.images.find(config.image.image)
    c.record.image_id, c.record.image_ref = image.id, _name_of(image, config.image)
    c.record.image_digest = next(iter(image.digests), "")
    lower = pods.images.hold(image.id, c.id)
    reached("create:image held")
    make_sources(config)
    make_writable(c.directory, lower, sandbox)
    reached("create:directories")
    doc = _plan(pods, c, sandbox, image, lower)
    overlay = plan_root(config, image.config, lower, c.directory, sandbox)
    log = open_log(pod.config.log_directory, config.log_path) if c.record.log_path else -1
    reached("create:log opened")
    try:
        pods.handler(pod).create(c, doc, overlay, log)
    finally:
        if log >= 0:
            os.close(log)
    reached("create:made")
    c.record.state = CREATED
    c.save()
    reached("create:end")


def _plan(pods: NodeState, c: Container, sandbox: Sandbox, image: Image, lower: Any) -> dict[str, Any]:
    """Its config.json; what a client may ask for is noted in the record. lower: the image's layers."""
    config = c.config
    user = look_up_user(lower, config, image.config)
    node = collect_node(pods.facts, config, pods.settings)
    target, images = _target(pods, c), _image_mounts(pods, c)
    doc = plan_container(config, c.pod.config, image.config, user, sandbox, node, id=c.id, target=target, images=images)
    relabel_sources(config, doc)
    c.record.warnings = list(node.warnings)
    c.record.stop_signal = str(stop_signal(config, image.config))
    c.record.user = {"uid": user.uid, "gid": user.gid, "groups": list(user.groups)}
    return doc


def _name_of(image: Image, asked: Any) -> str:
    """The name that was asked for where the image still has it: a kubelet asks by the id and tells the name apart."""
    wanted = asked.user_specified_image or asked.image
    with contextlib.suppress(PyrunError):
        wanted = str(parse_reference(wanted))
    return wanted if wanted in (*image.tags, *image.digests) else image.name


def _target(pods: NodeState, c: Container) -> str | None:
    """The PID namespace of the container that namespace_options.target_id names."""
    options = c.config.linux.security_context.namespace_options
    if not options.target_id:
        return None
    target = pods.container(options.target_id)
    if target.pod is not c.pod:
        raise InvalidArgument(f"container {options.target_id} is of another pod", hint="a target is of the same pod")
    pid = pods.handler(target.pod).pid(target)
    if not pid:
        raise FailedPrecondition(f"container {options.target_id} does not run, so its processes can't be shared")
    return f"/proc/{pid}/ns/pid"


def _image_mounts(pods: NodeState, c: Container) -> dict[int, ImageMount]:
    """The images that are mounted in it, held for it."""
    found: dict[int, ImageMount] = {}
    c.record.mounts = [""] * len(c.config.mounts)
    for index, mount in enumerate(c.config.mounts):
        if not mount.image.image:
            continue
        image = pods.images.find(mount.image.image)
        c.record.mounts[index] = image.id
        layers = pods.images.hold(image.id, f"{c.id}/{index}")
        at = look_up(layers, mount.image_sub_path or "/")
        if at is None:
            raise InvalidArgument(f"mounts.{index}.image_sub_path: there is no {mount.image_sub_path} in the image")
        with at:
            found[index] = ImageMount(tuple(at.parts), f"{c.directory}/empty", is_file=at.name is not None)
    return found


def unmake(pods: NodeState, c: Container) -> None:
    """Takes away all that it has but its pod's. PyrunError when something stays; then all else has been tried."""
    with undoing() as undo:
        undo(let_go, pods, c)
        undo(remove_directory, c.directory)


def let_go(pods: NodeState, c: Container) -> None:
    """The same but for its directory, which is debris from then on: it may be large, and nobody needs to wait."""
    with undoing() as undo:
        if not c.record.cleaned:
            undo(lambda: pods.handler(c.pod).delete(c))
            reached("remove:state gone")
            if c.pod.supervisor is not None:
                with contextlib.suppress(PyrunError):
                    drop(c.pod.supervisor, c.id)
        reached("remove:begin")
        undo(forget_record, c.directory)
        reached("remove:record gone")
        _release_images(pods, [c.id, *(f"{c.id}/{index}" for index in range(len(c.config.mounts)))])
        reached("remove:end")


def _release_images(pods: NodeState, owners: list[str]) -> None:
    """Last, and no reason to fail: a disk that is full takes no note of it. Then the next removal does it, or start."""
    for owner in (*pods.unreleased, *owners):
        try:
            pods.images.release(owner)
            pods.unreleased.discard(owner)
        except PyrunError as error:
            pods.unreleased.add(owner)
            pods.warn(f"the images of container {owner[:13]} stay held for now: {error}")
