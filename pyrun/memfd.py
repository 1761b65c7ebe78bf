"""Bytes that are handed to another process by a descriptor: memfd_create(2), sealed."""

from __future__ import annotations

import fcntl
import os

from .errors import PyrunError, reason

SEALS = 15  # F_SEAL_SEAL, SHRINK, GROW and WRITE


def sealed(name: str, data: bytes | memoryview) -> int:
    """A descriptor of these bytes, which nobody can change any more. name: as /proc shows it. PyrunError where there is
    no room for them."""
    fd = -1
    try:
        fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    except OSError as error:
        if fd >= 0:
            os.close(fd)
        raise PyrunError(f"memory for {name}: {reason(error)}") from None
    return fd
