"""`pyrun image prune`: images that nobody needs."""

from __future__ import annotations

from pyrun.cli.commands.image_ls import STORE_ROOT, open_store, size_text
from pyrun.cli.output import compact, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options


def run(g: Globals, o: Options) -> int:
    with open_store(g, o.root or STORE_ROOT) as images:
        count, size = images.prune(all=o.all)
    if o.format == "json":
        write(compact({"images": count, "bytes": size}) + "\n")
    else:
        write(f"removed {count} image{'s' * (count != 1)}, {size_text(size)}\n")
    return 0
