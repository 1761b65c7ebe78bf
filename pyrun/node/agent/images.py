"""Which of a pod's images may be used as they are: those that are here, unless the policy wants the registry asked."""

from __future__ import annotations

import asyncio

from ...errors import NotFound
from ...image.store import Images
from ..plan.observed import Desired
from ..plan.pod import containers_of


async def known_images(images: Images, desired: Desired, found: dict[str, str]) -> None:
    """Adds what is here to `found`, image reference → id."""
    for c in containers_of(desired).values():
        if c.image and c.image not in found and c.imagePullPolicy in ("IfNotPresent", "Never"):
            try:
                found[c.image] = (await asyncio.to_thread(images.find, c.image)).id
            except NotFound:
                pass


def waits_for_import(desired: Desired, found: dict[str, str]) -> bool:
    """An image that must not be pulled is not here."""
    return any(c.imagePullPolicy == "Never" and c.image not in found for c in containers_of(desired).values())
