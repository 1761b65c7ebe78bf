"""state: what `pyrun state` prints (runtime.md, State), from the halves that create rendered."""

from __future__ import annotations

from .store import Container


def state_text(c: Container) -> str:
    """The state as JSON. pid is 0 when the container has stopped."""
    status = c.status()
    pid = c.record.pid if status != "stopped" else 0
    return f'{c.record.text("state_head")}{pid},\n  "status": "{status}{c.record.text("state_tail")}'
