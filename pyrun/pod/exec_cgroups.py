"""The cgroups of a container's execs, one each, below its own: all that an exec has started can be killed by it.

A cgroup in which something still runs, or is about to end, can't be removed. It is remembered then and goes when a
later exec begins, and in any case with the container; so an exec that is killed each minute, as a probe may be, leaves
one at the most.
"""

from __future__ import annotations

import os
import threading

PREFIX = "exec-"


class ExecCgroups:
    """Of one container, for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left: set[str] | None = None  # None: nobody has looked yet what an earlier daemon has left

    def make(self, parent: str) -> str | None:
        """A new one's name below `parent`, the container's path. None: there can be none, as the container may have
        moved away, or bounded how many it may have."""
        name = f"{PREFIX}{os.urandom(6).hex()}"
        with self._lock:
            self._sweep(parent)
            try:
                os.mkdir(f"{parent}/{name}", 0o755)
            except OSError:
                return None
        return name

    def end(self, parent: str, name: str) -> None:
        """It is not used any more."""
        with self._lock:
            if not _remove(f"{parent}/{name}"):
                self._left = {*(self._left or ()), name}

    def _sweep(self, parent: str) -> None:
        if self._left is None:  # of an earlier daemon, as none of ours is there before this
            try:
                self._left = {name for name in os.listdir(parent) if name.startswith(PREFIX)}
            except OSError:
                self._left = set()
        self._left = {name for name in self._left if not _remove(f"{parent}/{name}")}


def _remove(path: str) -> bool:
    """Whether it is gone."""
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
