"""`pyrun state`: what a container is now, as JSON, whatever its status."""

from __future__ import annotations

from pyrun.cli.output import write
from pyrun.runtime.state import state_text
from pyrun.runtime.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options


def run(g: Globals, o: Options) -> int:
    write(state_text(Store(g.root).open(o.id)))
    return 0
