"""inotify(7): what happens to files in directories, by a descriptor that can be polled.

A leaf, by ctypes: four calls of the C library. An instance is for one thread; it is never blocking.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import NamedTuple

from .errors import PyrunError, reason

# Masks, of sys/inotify.h.
MODIFY, ATTRIB, CLOSE_WRITE, MOVED_FROM, MOVED_TO = 0x2, 0x4, 0x8, 0x40, 0x80
CREATE, DELETE, DELETE_SELF, MOVE_SELF = 0x100, 0x200, 0x400, 0x800
UNMOUNT, Q_OVERFLOW, IGNORED, ISDIR = 0x2000, 0x4000, 0x8000, 0x40000000
ONLYDIR = 0x01000000
# A file's content is there, another's place was taken, or it is gone; and the directory itself.
CHANGES = CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE | DELETE_SELF | MOVE_SELF

_HEADER = struct.Struct("=iIII")
_READ_BYTES = 1 << 16
_LIBC = ctypes.CDLL(None, use_errno=True)


class Event(NamedTuple):
    """wd: as add() returned it; -1 with Q_OVERFLOW in mask: events were lost, so look at everything anew. cookie: the
    same for both halves of a rename. name: in the directory; "" for the watched thing itself."""

    wd: int
    mask: int
    cookie: int
    name: str


class Watch:
    """An inotify instance. PyrunError where the machine has no more (fs.inotify.max_user_instances)."""

    def __init__(self) -> None:
        fd: int = _LIBC.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if fd < 0:
            raise _failed("inotify", "fs.inotify.max_user_instances")
        self._fd = fd

    def add(self, path: str, mask: int = CHANGES) -> int:
        """Watches a file or directory; the same one twice has one wd and the later mask. PyrunError."""
        wd = int(_LIBC.inotify_add_watch(self._fd, os.fsencode(path), ctypes.c_uint32(mask)))
        if wd < 0:
            raise _failed(f"inotify {path}", "fs.inotify.max_user_watches")
        return wd

    def remove(self, wd: int) -> None:
        """No event of it follows but IGNORED. One that is gone already is no error."""
        _LIBC.inotify_rm_watch(self._fd, wd)

    def fileno(self) -> int:
        return self._fd

    def read(self) -> list[Event]:
        """What has happened since; [] if nothing has."""
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return []
        found, at = [], 0
        while at < len(data):
            wd, mask, cookie, size = _HEADER.unpack_from(data, at)
            at += _HEADER.size
            found.append(Event(wd, mask, cookie, os.fsdecode(data[at : at + size].rstrip(b"\0"))))
            at += size
        return found

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _failed(what: str, limit: str) -> PyrunError:
    number = ctypes.get_errno()
    hint = f"sysctl {limit}" if number in (24, 28) else None  # EMFILE, ENOSPC
    return PyrunError(f"{what}: {reason(OSError(number, os.strerror(number)))}", hint=hint)
