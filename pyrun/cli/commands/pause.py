"""`pyrun pause`: freezes every process of a container."""

from __future__ import annotations

from pyrun.runtime.runtime import Runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options


def run(g: Globals, o: Options) -> int:
    Runtime(g.root).container(o.id).pause()
    return 0
