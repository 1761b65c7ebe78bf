"""`pyrun delete`: removes what a stopped container has left, and with --force any container."""

from __future__ import annotations

from pyrun.runtime.runtime import Runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options


def run(g: Globals, o: Options) -> int:
    Runtime(g.root, warn=g.warn).container(o.id).delete(force=o.force)
    return 0
