"""`pyrun pause`: freezes every process of a container."""

from __future__ import annotations

from pyrun.runtime.pause import pause
from pyrun.runtime.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options


def run(g: Globals, o: Options) -> int:
    pause(Store(g.root), o.id)
    return 0
