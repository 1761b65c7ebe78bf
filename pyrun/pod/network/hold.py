"""A network namespace has one built-in network: the table, the names of links and the routes are those of one daemon.

The lock is flock(2) on the namespace's own file, so it is found from wherever the namespace is, needs no name, and ends
with its process, however that ends.
"""

from __future__ import annotations

import fcntl
import os
import threading
from weakref import WeakValueDictionary

from ...errors import FailedPrecondition

OWN = "/proc/thread-self/ns/net"


class Hold:
    """While it is there, no other process has the namespace."""

    __slots__ = ("__weakref__", "_fd")

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __del__(self) -> None:
        os.close(self._fd)


_lock = threading.Lock()
_held: WeakValueDictionary[tuple[int, int], Hold] = WeakValueDictionary()  # of this process, by device and inode


def hold_namespace() -> Hold:
    """The network namespace of this thread, for this process. FailedPrecondition where another has it."""
    with _lock:
        fd = os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)
        status = os.fstat(fd)
        key = status.st_dev, status.st_ino
        if (found := _held.get(key)) is not None:
            os.close(fd)
            return found
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise FailedPrecondition(
                "another pyrun cri has the built-in network of this network namespace",
                hint="start one of the two in another (unshare -n), or give it a network of CNI's (cni_conf_dir)",
            ) from None
        made = _held[key] = Hold(fd)
        return made
