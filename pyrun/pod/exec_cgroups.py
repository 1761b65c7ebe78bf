"""The cgroups of a container's execs, one each, below its own: all that an exec has started can be killed by it.

A cgroup in which something still runs, or is about to end, can't be removed. It goes when the kernel says that it is
empty (cgroup.events), one that an earlier daemon left when a later exec begins, and all of them with the container.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading

PREFIX = "exec-"


class ExecCgroups:
    """Of one container, for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left: set[str] | None = None  # that nobody waits for; None: nobody has looked for an earlier daemon's
        self._events: dict[int, str] = {}  # cgroup.events of one that is to go -> its path
        self._epoll: select.epoll | None = None  # of these, while there are any

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
            if _remove(path := f"{parent}/{name}"):
                return
            try:
                self._await_end(path)
            except (OSError, RuntimeError):  # no more descriptors or threads
                self._left = {*(self._left or ()), name}

    def _await_end(self, path: str) -> None:
        with contextlib.ExitStack() as stack:
            fd = os.open(f"{path}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            epoll = self._epoll or stack.enter_context(select.epoll())
            epoll.register(fd, select.EPOLLPRI)  # ready from the first
            if self._epoll is None:
                threading.Thread(target=self._remove_emptied, args=(epoll,), name="exec-cgroups", daemon=True).start()
            stack.pop_all()
        self._events[fd], self._epoll = path, epoll

    def _remove_emptied(self, epoll: select.epoll) -> None:
        """Until there are none."""
        while True:
            ready = epoll.poll()
            with self._lock:
                for fd, _ in ready:
                    try:
                        os.pread(fd, 256, 0)  # or it stays ready; and first, so that no change is missed
                        gone = _remove(self._events[fd])
                    except OSError:  # ENODEV: it went with the container
                        gone = True
                    if gone:
                        del self._events[fd]
                        os.close(fd)
                if not self._events:
                    epoll.close()
                    self._epoll = None
                    return

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
