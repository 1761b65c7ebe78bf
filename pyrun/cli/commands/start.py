"""`pyrun start`: lets the program of a created container go."""

from __future__ import annotations

import posix

from pyrun.runtime.runtime import Runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options


def run(g: Globals, o: Options) -> int:
    manager = posix.environ.get(b"NOTIFY_SOCKET") or None
    Runtime(g.root, warn=g.warn).container(o.id).start(notify=manager, replayed=g.replayed())
    return 0
