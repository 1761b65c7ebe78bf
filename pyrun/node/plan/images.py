"""Which images to pull, and why a container waits for its image."""

from __future__ import annotations

from collections.abc import Iterator

from .actions import Pull
from .back_off import FIRST_S, after, waits_until
from .observed import AnyContainer, BackOff, Desired, NodeFacts, Observed


def is_here(observed: Observed, c: AnyContainer) -> bool:
    """The image may be used: here, and asked for anew where the policy wants that (an answer of this agent's life)."""
    return (c.image or "") in observed.images


def pull(desired: Desired, observed: Observed, c: AnyContainer, node: NodeFacts, now: float) -> Iterator[Pull | float]:
    """A pull to begin now, or when the next may be; nothing where the image is here or must not be pulled."""
    image = c.image or ""
    if image in observed.images or c.imagePullPolicy == "Never":
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


def why_waiting(observed: Observed, c: AnyContainer, now: float) -> tuple[str, str] | None:
    """(reason, message) of a container whose image is not here, as a kubelet has it."""
    image = c.image or ""
    if image in observed.images:
        return None
    if c.imagePullPolicy == "Never":
        return "ErrImageNeverPull", f"Container image {image!r} is not present with pull policy of Never"
    failed = observed.pulls.get(image)
    if failed is None or not failed.error:
        return None
    # The error for a moment, as long as the next try is not waited for yet; then the wait.
    if ("pull", image) in observed.busy:
        return "ErrImagePull", failed.error
    left = max(0.0, failed.failed + failed.seconds - now)
    return "ImagePullBackOff", f"Back-off pulling image {image!r}, again in {left:.0f} s: {failed.error}"
