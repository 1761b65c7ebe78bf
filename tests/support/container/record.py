"""Records that a test has changed."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyrun.runtime.record import seal

F_OFD_SETLK = 37


def sealed(record: bytes) -> bytes:
    """With the checksum that is right for it."""
    whole = bytearray(record)
    seal(whole)
    return bytes(whole)


@contextmanager
def locked(record: Path) -> Iterator[None]:
    """The record of a create that is at work: it holds a lock on it."""
    fd = os.open(record, os.O_RDWR)
    try:
        fcntl.fcntl(fd, F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
        yield
    finally:
        os.close(fd)
