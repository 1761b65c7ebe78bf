"""`pyrun image ls`: the images of the store; and what the other `image` verbs share."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyrun.cli.output import columns, compact, write
from pyrun.image.layers import what_is_missing

try:
    from pyrun.image.pull import Settings
    from pyrun.image.store import LOST, Image, Images
except ModuleNotFoundError as error:
    from pyrun.cli.commands.cri import missing_package

    raise missing_package(error)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options

STORE_ROOT = "/var/lib/pyrun"
TITLES = ("NAME", "ID", "SIZE", "PULLED")


def run(g: Globals, o: Options) -> int:
    with open_store(g, o.root or STORE_ROOT) as images:
        found = images.list()
    if o.quiet:
        write("".join(f"{image.id}\n" for image in found))
    elif o.format == "json":
        write("[" + ",".join(map(as_json, found)) + "]\n")
    else:
        write(columns([TITLES, *(row for image in found for row in _rows(image))]))
    return 0


@contextmanager
def open_store(g: Globals, root: str, settings: Settings | None = None, layers: str = "dir") -> Iterator[Images]:
    """The store below a root that `pyrun cri` may have open as well."""
    import os

    from pyrun.errors import PyrunError

    if os.geteuid() != 0:
        raise PyrunError("images need root", hint="sudo pyrun image …: layers keep the owners of their files")
    if missing := what_is_missing():
        raise PyrunError("layers can't be unpacked", hint=missing)
    images = Images(f"{os.path.abspath(root)}/image", layers=layers, settings=settings, warn=g.warn)
    for image in images.damaged:
        g.warn(f"image {image}: {LOST}")
    try:
        yield images
    finally:
        images.close()


def described(image: Image) -> dict[str, Any]:
    """What tools are told of an image."""
    return {
        "id": image.id,
        "tags": list(image.tags),
        "digests": list(image.digests),
        "size": image.size,
        "pulled": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(image.pulled // 10**9)),
        "created": image.file.created,
        "architecture": image.file.architecture,
        "damaged": image.damaged or None,
    }


def as_json(image: Image) -> str:
    return compact(described(image))


def _rows(image: Image) -> list[tuple[str, ...]]:
    rest = (image.id.removeprefix("sha256:")[:12], size_text(image.size), age_text(time.time() - image.pulled / 1e9))
    return [(name, *rest) for name in image.tags or image.digests or ("-",)]


def size_text(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 9.95 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def age_text(seconds: float) -> str:
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if (count := int(seconds // length)) > 0:
            return f"{count} {unit}{'s' * (count > 1)} ago"
    return "just now"
