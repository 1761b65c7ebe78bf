"""Which images to pull, and why a container waits for its image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ...errors import InvalidArgument
from ...image.reference import parse_reference
from ...kube.objects.pods import PodSpec
from .actions import Pull
from .back_off import FIRST_S, after, waits_until
from .observed import AnyContainer, BackOff, Desired, NodeFacts, Observed


class Wanted(NamedTuple):
    """policy: Always, IfNotPresent or Never."""

    image: str
    policy: str


def images_of(spec: PodSpec, c: AnyContainer) -> list[Wanted]:
    """What a container can't start without: its own, and those of the volumes that it mounts (KEP-4639)."""
    mounted = {mount.name for mount in c.volumeMounts or ()}
    volumes = [volume.image for volume in spec.volumes or () if volume.name in mounted and volume.image is not None]
    return [
        Wanted(c.image or "", c.imagePullPolicy or "Always"),
        *(Wanted(image.reference or "", image.pullPolicy or "Always") for image in volumes),
    ]


def is_here(desired: Desired, observed: Observed, c: AnyContainer) -> bool:
    """Its images may be used: here, and asked for anew where the policy wants that (an answer of this agent's life)."""
    return all(image in observed.images for image, _ in images_of(desired.spec, c))


def pull(desired: Desired, observed: Observed, wanted: Wanted, node: NodeFacts, now: float) -> Iterator[Pull | float]:
    """A pull to begin now, or when the next may be; nothing where the image is here or must not be pulled."""
    image, policy = wanted
    if image in observed.images or policy == "Never" or _is_no_name(image):
        return
    failed = observed.pulls.get(image)
    if failed is None:
        yield Pull(image, BackOff(min(FIRST_S, node.longest_back_off), now))
        return
    begin = waits_until(failed, failed.failed, desired.retried, now)
    if begin <= now:
        yield Pull(image, after(failed, failed.failed, now, node.longest_back_off, desired.retried))
    else:
        yield begin


def why_waiting(desired: Desired, observed: Observed, c: AnyContainer, now: float) -> tuple[str, str] | None:
    """(reason, message) of a container an image of which is not here, as a kubelet has it."""
    return next((why for one in images_of(desired.spec, c) if (why := _why_not_here(observed, one, now))), None)


def _is_no_name(image: str) -> str:
    """Why no registry and no store can have it; "" for a name."""
    try:
        parse_reference(image)
    except InvalidArgument as error:
        return "" if image.startswith("sha256:") else str(error)
    return ""


def _why_not_here(observed: Observed, wanted: Wanted, now: float) -> tuple[str, str] | None:
    image, policy = wanted
    if image in observed.images:
        return None
    if why := _is_no_name(image):
        return "InvalidImageName", f'Failed to apply default image tag "{image}": {why}'
    if policy == "Never":
        return "ErrImageNeverPull", f"Container image {image!r} is not present with pull policy of Never"
    failed = observed.pulls.get(image)
    if failed is None or not failed.error:
        return None
    # The error for a moment, as long as the next try is not waited for yet; then the wait.
    if ("pull", image) in observed.busy:
        return "ErrImagePull", failed.error
    left = max(0.0, failed.failed + failed.seconds - now)
    return "ImagePullBackOff", f"Back-off pulling image {image!r}, again in {left:.0f} s: {failed.error}"
