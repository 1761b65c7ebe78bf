"""The image's layers as the container's root, and as a mount of another image."""

from __future__ import annotations

from ...image.merged import look_up
from ...plan.model.overlay import Overlay
from ...plan.rootfs.rootfs_plan import clean_path
from .draft import refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

UPPER, WORK = "upper", "work"


def plan_root(config: Any, image: Any, lower: tuple[str, ...], directory: str, sandbox: Any) -> Overlay:
    """What Request.overlay is to be. lower: the layers' directories, topmost first. directory: the container's, with
    what make_writable() has made in it.

    The image's volumes are directories of its own root, which stay writable where the root does not; one on which the
    request mounts something is that mount's."""
    taken = {clean_path(mount.container_path) for mount in config.mounts}
    volumes = sorted({clean_path(path) for path in image.volumes if "\0" not in path} - taken - {"/"})
    return Overlay(
        lower,
        f"{directory}/{UPPER}",
        f"{directory}/{WORK}",
        idmap=bool(sandbox.user),
        volumes=tuple(volumes),
    )


def image_mount(lower: tuple[str, ...], sub_path: str, empty: str, place: str = "mounts") -> ImageMount:
    """What of an image is mounted: all of it, or what lies at sub_path, which its own symlinks lead to and no further.
    lower: its layers' directories, topmost first. empty: an empty directory of the container's."""
    if not sub_path:
        return ImageMount(lower, empty)
    if sub_path.startswith("/") or "\0" in sub_path or ".." in sub_path.split("/"):
        refuse(f"{place}.image_sub_path", f"{sub_path!r} is no path below the image's root")
    found = look_up(lower, sub_path)
    if found is None:
        refuse(f"{place}.image_sub_path", f"{sub_path} is not in the image")
    with found:
        return ImageMount(tuple(found.parts), empty, is_file=found.name is not None)


class ImageMount:
    """An image, or what lies below a path in it, that is to be mounted. parts: directories, topmost first, or the one
    file. empty: an empty directory of ours, as an overlay has two layers at least."""

    __slots__ = ("empty", "is_file", "parts")

    def __init__(self, parts: tuple[str, ...], empty: str, *, is_file: bool = False) -> None:
        self.parts = parts
        self.empty = empty
        self.is_file = is_file

    def mount(self, destination: str) -> dict[str, Any]:
        """The entry of config.json's mounts: read-only, with no device and nothing set-id in it."""
        flags = ["ro", "nosuid", "nodev"]
        if self.is_file:
            options = ["bind", "rprivate", *flags]
            return {"destination": destination, "type": "bind", "source": self.parts[0], "options": options}
        parts = self.parts if len(self.parts) > 1 else (*self.parts, self.empty)
        lower = "lowerdir=" + ":".join(_escaped(part) for part in parts)
        return {"destination": destination, "type": "overlay", "source": "overlay", "options": [*flags, lower]}


def _escaped(path: str) -> str:
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")
