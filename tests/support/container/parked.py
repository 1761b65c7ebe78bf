"""A process that sleeps in namespaces of its own, for what joins them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.container.runner import wait_for

PATIENCE_S = 60.0


@contextmanager
def parked(*options: str, first: str = ":") -> Iterator[int]:
    """Its pid. options: of unshare(1). first: what a shell does there before.

    Only when it is `sleep` has unshare's child asked to be killed with its parent: killed before, it would stay.
    """
    argv = ["unshare", *options, "--fork", "--kill-child", "sh", "-c", f"{first}; exec sleep 1000"]
    process = subprocess.Popen(argv)
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        wait_for(lambda: bool(children.read_text()), PATIENCE_S, "unshare's child")
        child = int(children.read_text())
        wait_for(lambda: Path(f"/proc/{child}/comm").read_text() == "sleep\n", PATIENCE_S, "the child to be ready")
        yield child
    finally:
        process.kill()
        process.wait()
