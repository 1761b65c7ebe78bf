"""`pyrun proxy cleanup`: takes away what a killed `pyrun proxy` has left."""

from __future__ import annotations

from pyrun.cli.commands.proxy_run import STATE
from pyrun.proxy.cleanup import clean_up

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options


def run(g: Globals, o: Options) -> int:
    clean_up(o.state or STATE)
    return 0
