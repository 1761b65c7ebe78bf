"""Blocks that the disk keeps for the store's database, since SQLite writes to take a row away: without them no image
could be removed from a disk that is full, and no daemon could start there.

Two lots: the write-ahead log has its own beyond its end, for a store that is open; and a file that is given up lets one
be opened. Where a file system can't do that all else goes on as it is.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

# 4 MiB are in the log when SQLite begins anew with it; the rest is for what can not go from there into the file yet.
BYTES = 6 << 20
# More than that, for what else a start makes. SQLite maps a file with holes, and a hole that can't be filled is SIGBUS.
SPARE = 7 << 20
PLENTY = 96 << 20  # a disk with less left has it for other things
_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE
_LIBC = ctypes.CDLL(None, use_errno=True)


def keep(database: str) -> None:
    """Of the open database of this path. Never opens the file itself: closing it would end SQLite's locks on it, but
    there are none on its log."""
    spare = f"{database}-spare"
    with suppress(OSError):
        found = os.statvfs(os.path.dirname(database))
        if found.f_bfree * found.f_frsize >= SPARE:
            _allocate(f"{database}-wal", os.O_RDWR, _KEEP_SIZE, BYTES)
        if found.f_bavail * found.f_frsize >= PLENTY and _size(spare) < SPARE:
            # Also in one that is there: a process killed between the two, or a power cut, leaves it empty.
            try:
                _allocate(spare, os.O_RDWR | os.O_CREAT, 0, SPARE)
            except OSError:
                os.unlink(spare)


def give_up(database: str) -> bool:
    """Whether there was something to be given up, for a database that can't be opened."""
    try:
        os.unlink(f"{database}-spare")
    except OSError:
        return False
    return True


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except FileNotFoundError:
        return -1


def _allocate(path: str, flags: int, mode: int, size: int) -> None:
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if _LIBC.fallocate(fd, mode, ctypes.c_int64(0), ctypes.c_int64(size)):
            raise OSError(ctypes.get_errno(), "fallocate")
    finally:
        os.close(fd)
