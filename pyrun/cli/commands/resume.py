"""`pyrun resume`: thaws a paused container."""

from __future__ import annotations

from pyrun.runtime.pause import resume
from pyrun.runtime.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options


def run(g: Globals, o: Options) -> int:
    resume(Store(g.root), o.id)
    return 0
