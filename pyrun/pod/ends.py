"""What is known of containers' ends where no supervisor is there to tell: its records, and the kernel."""

from __future__ import annotations

import fcntl
import os
import struct

from . import messages as m
from .messages import Known

PIDFD_GET_INFO, INFO_EXIT, INFO_SIZE = 0xC0000000 | 64 << 16 | 0xFF << 8 | 11, 8, 64


def read_exits(directory: str) -> dict[str, Known]:
    """What the pod's supervisor, which may be gone, has recorded of containers that have ended, by their names."""
    found = {}
    try:
        names = os.listdir(f"{directory}/exits")
    except FileNotFoundError:
        return {}
    for name in names:
        try:
            with open(f"{directory}/exits/{name}", "rb") as f:
                known = m.read_exit(f.read(4096), name)
        except OSError:
            continue
        if known is not None:
            found[name] = known
    return found


def lost_status(pidfd: int) -> int | None:
    """The wait status of a process that is not our child, once it has been reaped (Linux 6.15); None: not known."""
    info = bytearray(struct.pack("<Q", INFO_EXIT) + bytes(INFO_SIZE - 8))
    try:
        fcntl.ioctl(pidfd, PIDFD_GET_INFO, info)
    except OSError:
        return None
    mask = struct.unpack_from("<Q", info)[0]
    return struct.unpack_from("<i", info, 60)[0] if mask & INFO_EXIT else None
