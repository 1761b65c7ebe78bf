"""Named points of the daemon's changes, at which a test kills it to look at what the next one makes of the rest.

In a daemon that runs, `hook` is None and a point is one comparison. A point stands behind each thing that is made or
removed, so that between two points there is one thing at most.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

hook: Callable[[str], None] | None = None


def reached(name: str) -> None:
    if hook is not None:
        hook(name)
