"""`pyrun state`: what a container is now, as JSON, whatever its status."""

from __future__ import annotations

from pyrun.cli.output import write
from pyrun.runtime.runtime import Runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options


def run(g: Globals, o: Options) -> int:
    write(Runtime(g.root).container(o.id).state())
    return 0
