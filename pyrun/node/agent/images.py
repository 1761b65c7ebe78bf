"""Which of a pod's images may be used as they are: those that are here, unless the policy wants the registry asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ...errors import InvalidArgument, NotFound
from ...image.store import Images
from ..plan.images import Wanted, images_of
from ..plan.observed import Desired
from ..plan.pod import containers_of
from .pulled import Pulled


async def known_images(
    images: Images, pulled: Pulled, desired: Desired, found: dict[str, str], may: Callable[[str, str], Awaitable[bool]]
) -> None:
    """Adds what is here and the pod may have to `found`, image reference → id. may: asked of one that is not
    everybody's, by reference and id."""

    def look(image: str) -> tuple[str, bool]:
        id = images.find(image).id
        return id, pulled.is_everybodys(image, id)

    for image, policy in every_image(desired):
        if image and image not in found and policy in ("IfNotPresent", "Never"):
            try:
                id, free = await asyncio.to_thread(look, image)
            except (NotFound, InvalidArgument):  # the plan says what is no name
                continue
            if free or await may(image, id):
                found[image] = id


def every_image(desired: Desired) -> list[Wanted]:
    """Of its containers, and of the volumes that these mount."""
    return [one for c in containers_of(desired).values() for one in images_of(desired.spec, c)]


def waits_for_import(desired: Desired, found: dict[str, str]) -> bool:
    """An image that must not be pulled is not here."""
    return any(policy == "Never" and image not in found for image, policy in every_image(desired))
