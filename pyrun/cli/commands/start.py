"""`pyrun start`: lets the program of a created container go."""

from __future__ import annotations

from pyrun.runtime.start import start
from pyrun.runtime.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options


def run(g: Globals, o: Options) -> int:
    start(Store(g.root), o.id)
    return 0
