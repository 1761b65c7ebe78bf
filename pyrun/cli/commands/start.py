"""`pyrun start`: lets the program of a created container go."""

from __future__ import annotations

import posix

from pyrun.runtime.runtime import Runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options
    from pyrun.executor import Replayed


def run(g: Globals, o: Options) -> int:
    manager = posix.environ.get(b"NOTIFY_SOCKET") or None
    Runtime(g.root, warn=g.warn).container(o.id).start(notify=manager, replayed=_replayed())
    return 0


def _replayed() -> Replayed | None:
    """What the launcher's run of the same plan came to, if it ran that."""
    words = posix.environ.pop(b"PYRUN_FAILED", None)
    if words is None:
        return None
    from pyrun.executor import Replayed

    return Replayed(words)
