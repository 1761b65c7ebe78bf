"""`pyrun image verify`: whether images are still what came."""

from __future__ import annotations

from pyrun.cli.commands.image_ls import STORE_ROOT, open_store
from pyrun.cli.output import compact, write
from pyrun.errors import NotFound, PyrunError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options
    from pyrun.image.verify import Verified


def run(g: Globals, o: Options) -> int:
    """An error, after the list, unless all of it was compared and is right."""
    with open_store(g, o.root or STORE_ROOT) as images:
        from pyrun.image import verify

        ids = dict.fromkeys(images.find(name).id for name in o.image or ())
        if not o.image and (wrong := verify.check_database(images)):
            raise PyrunError(
                f"{images.contents.root}/meta.db: {wrong[0]}", hint="the disk, or a copy of it, is damaged"
            )
        found = verify.verify(images, ids or ([] if o.image else [image.id for image in images.list()]))
        if gone := ids.keys() - {image.id for image in found}:
            raise NotFound(f"{', '.join(gone)}: removed while it was looked at")
    if o.format == "json":
        write("[" + ",".join(map(_as_json, found)) + "]\n")
    else:
        write("".join(line for image in found for line in _lines(image)))
    damaged = [image.name for image in found if image.having(verify.DAMAGED)]
    unknown = [image.name for image in found if image.having(verify.UNKNOWN)]
    if damaged:
        hint = f"pyrun image pull {damaged[0]} brings what is damaged again; nothing new is run from it till then"
        raise PyrunError(f"damaged: {', '.join(damaged)}", hint=hint)
    if unknown:
        hint = f"to have it recorded: pyrun image rm {unknown[0]}, then pull it again"
        raise PyrunError(f"not all could be compared: {', '.join(unknown)}", hint=hint)
    return 0


def _lines(image: Verified) -> list[str]:
    layers = sum(part.kind == "layer" for part in image.parts)
    bad = [part for part in image.parts if part.state != "ok"]
    if not bad:
        return [f"{image.name}: ok, {layers} layer{'s' * (layers != 1)}\n"]
    return [f"{image.name}: {part.kind} {part.digest}: {part.state}: {part.why}\n" for part in bad]


def _as_json(image: Verified) -> str:
    parts = [
        {"kind": part.kind, "digest": part.digest, "state": part.state, "why": part.why or None} for part in image.parts
    ]
    return compact({"id": image.id, "name": image.name, "parts": parts})
