"""`pyrun image inspect`: all that the store knows of an image."""

from __future__ import annotations

import json

from pyrun.cli.commands.image_ls import STORE_ROOT, described, open_store
from pyrun.cli.output import indented, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options


def run(g: Globals, o: Options) -> int:
    with open_store(g, o.root or STORE_ROOT) as images:
        image = images.find(o.image)
        manifest, config = images.manifest(image.id)
        layers = [{"diffId": diff_id, "directory": images.contents.path(diff_id)} for diff_id in image.file.diff_ids]
        written = image.id not in images.unwritten()
    shown = {**described(image), "written": written, "layers": layers}
    shown |= {"manifest": json.loads(manifest), "config": json.loads(config)}
    write(indented(shown) + "\n")
    return 0
