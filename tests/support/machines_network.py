"""The machine's network, for what a test starts or makes that outlives it: the test may be in a network of its own."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

NETWORK = os.open("/proc/self/ns/net", os.O_RDONLY)  # no test has begun yet


@contextlib.contextmanager
def machines_network() -> Iterator[None]:
    """This thread, and what it starts, in the network namespace that the process began in, and back."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if os.path.sameopenfile(own, NETWORK):
            yield
            return
        _setns(NETWORK)
        try:
            yield
        finally:
            _setns(own)
    finally:
        os.close(own)


def _setns(fd: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, 0):
        raise OSError(ctypes.get_errno(), "setns")
