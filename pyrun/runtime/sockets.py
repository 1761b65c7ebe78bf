"""connect(2) to a unix socket, wherever it lies."""

from __future__ import annotations

import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket

LONGEST = 107  # bytes of a path in an address (unix(7))


def connect(sender: socket, address: bytes) -> None:
    """address: a path, or an abstract name behind a NUL. A longer path goes through a descriptor. Raises OSError."""
    if len(address) <= LONGEST or address.startswith(b"\0"):
        sender.connect(address)
        return
    there = posix.open(address, posix.O_PATH | posix.O_CLOEXEC)
    try:
        sender.connect(f"/proc/self/fd/{there}")
    finally:
        posix.close(there)
