"""PullImage. A client that gives up loses its answer, not the pull: the kubelet asks again, and joins what goes on."""

from __future__ import annotations

import asyncio
from typing import Any

from ... import cri_api as v1
from ...errors import InvalidArgument
from ...image.fetch import Tell
from ...image.registry.credentials import from_request
from ..cri import Cri


async def pull_image(cri: Cri, request: Any, tell: Tell | None = None) -> Any:
    """image_ref: the image's id, which is what containers are then made of, whatever becomes of the tag. tell: called
    in a thread."""
    name = request.image.image
    if not name:
        raise InvalidArgument("image.image is missing")
    given = request.auth
    auth = from_request(
        given.username, given.password, given.auth, given.server_address, given.identity_token, given.registry_token
    )
    image = await asyncio.to_thread(cri.images.pull, name, auth=auth, progress=tell)
    return v1.PullImageResponse(image_ref=image.id)
