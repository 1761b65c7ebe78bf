"""`pyrun image import`: the images of an OCI layout or a docker archive."""

from __future__ import annotations

from pyrun.cli.commands.image_ls import STORE_ROOT, as_json, open_store
from pyrun.cli.output import write
from pyrun.errors import UsageError
from pyrun.image.archive.files import open_files
from pyrun.image.archive.read import find_images
from pyrun.image.reference import parse_reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options


def run(g: Globals, o: Options) -> int:
    from pyrun.cli.layer_lines import LayerLines

    given = (parse_reference(o.name),) if o.name else ()
    with (
        open_store(g, o.root or STORE_ROOT, layers=o.layers) as images,
        open_files(o.path, images.contents.root) as files,
    ):
        found = find_images(files)
        if given and len(found) != 1:
            raise UsageError(f"--name {o.name}: there are {len(found)} images in it", hint="leave the option out")
        made = []
        for one in found:
            with LayerLines(2, silent=o.format == "json") as lines:
                names = given or one.names
                made.append(images.add(one.source, names, want=one.want, digests=one.named, tell=lines.tell))
        if o.format == "json":
            write("[" + ",".join(map(as_json, made)) + "]\n")
        else:
            write("".join(f"{image.name}\n" for image in made))
    return 0
