"""ListImages and its stream, ImageStatus, RemoveImage, ImageFsInfo."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from ... import cri_api as v1
from ...errors import InvalidArgument, NotFound
from ...image.store import Image
from ..cri import Cri


async def list_images(cri: Cri, request: Any) -> Any:
    return v1.ListImagesResponse(images=await asyncio.to_thread(_items, cri, request.filter))


async def stream_images(cri: Cri, request: Any) -> AsyncIterator[Any]:
    for item in await asyncio.to_thread(_items, cri, request.filter):
        yield v1.StreamImagesResponse(images=[item])


async def image_status(cri: Cri, request: Any) -> Any:
    """Without an image where there is none, or one that `pyrun image verify` has found damaged: that is how a kubelet
    learns that it has to pull."""
    reference = _reference(request.image)
    try:
        image = await asyncio.to_thread(cri.images.find, reference)
    except NotFound:
        return v1.ImageStatusResponse()
    if image.damaged:
        return v1.ImageStatusResponse()
    response = v1.ImageStatusResponse(image=_item(image))
    if request.verbose:
        config = image.config
        response.info["info"] = json.dumps(
            {
                "imageSpec": {
                    "config": {
                        "User": config.user,
                        "Env": list(config.env),
                        "Entrypoint": list(config.entrypoint),
                        "Cmd": list(config.cmd),
                        "WorkingDir": config.working_dir,
                        "Labels": dict(config.labels),
                    }
                }
            }
        )
    return response


async def remove_image(cri: Cri, request: Any) -> Any:
    """Answers when nobody can have it any more; a disk may take seconds to forget its files."""
    await asyncio.to_thread(cri.images.remove, _reference(request.image), wait=False)
    return v1.RemoveImageResponse()


async def image_fs_info(cri: Cri, request: Any) -> Any:
    """What the images take; what containers have written is in their own statistics."""
    used, inodes = await asyncio.to_thread(cri.images.usage)
    usage = v1.FilesystemUsage(
        timestamp=time.time_ns(),
        fs_id=v1.FilesystemIdentifier(mountpoint=f"{cri.root}/image"),
        used_bytes=v1.UInt64Value(value=used),
        inodes_used=v1.UInt64Value(value=inodes),
    )
    return v1.ImageFsInfoResponse(image_filesystems=[usage], container_filesystems=[usage])


def _reference(spec: Any) -> str:
    name: str = spec.image
    if not name:
        raise InvalidArgument("image.image is missing")
    return name


def _items(cri: Cri, filter: Any) -> list[Any]:
    if filter.image.image:
        try:
            return [_item(cri.images.find(filter.image.image))]
        except NotFound:
            return []
    return [_item(image) for image in cri.images.list()]


def _item(image: Image) -> Any:
    """user: by number where the image has one, else by name; a group is not told."""
    user = image.config.user.partition(":")[0]
    item = v1.Image(
        id=image.id,
        repo_tags=image.tags,
        repo_digests=image.digests,
        size=max(1, image.size),
        spec=v1.ImageSpec(image=image.id),
        pinned=image.pinned,
    )
    if user.isascii() and user.isdigit():
        item.uid.value = min(int(user), (1 << 63) - 1)
    else:
        item.username = user
    return item
