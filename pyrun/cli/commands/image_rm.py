"""`pyrun image rm`: names go, and images with their last one."""

from __future__ import annotations

from pyrun.cli.commands.image_ls import STORE_ROOT, open_store
from pyrun.cli.output import write
from pyrun.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options


def run(g: Globals, o: Options) -> int:
    if not o.image:
        raise UsageError("IMAGE is missing: pyrun image rm IMAGE...", hint="pyrun image ls shows their names")
    with open_store(g, o.root or STORE_ROOT) as images:
        for name in o.image:
            image = images.find(name)
            gone = images.untag(name)
            write(f"removed {image.id}\n" if gone else f"untagged {name}\n")
    return 0
