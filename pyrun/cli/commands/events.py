"""`pyrun events`: a container's statistics and out-of-memory kills, one JSON object a line as they come."""

from __future__ import annotations

from pyrun.cli.output import compact, write
from pyrun.runtime.events import events
from pyrun.runtime.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options


def run(g: Globals, o: Options) -> int:
    for event in events(Store(g.root), o.id, stats=o.stats, interval=o.interval):
        write(compact(event) + "\n")
    return 0
