"""`pyrun delete`: removes what a stopped container has left, and with --force any container."""

from __future__ import annotations

from pyrun.runtime.delete import delete
from pyrun.runtime.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options


def run(g: Globals, o: Options) -> int:
    delete(Store(g.root), o.id, force=o.force, warn=g.warn)
    return 0
