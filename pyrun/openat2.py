"""openat2(2): paths that are resolved within bounds, which the kernel holds also while somebody moves what they lead
over. A leaf, by ctypes: Python has no such call."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from .errors import PyrunError

NO_XDEV, NO_MAGICLINKS, NO_SYMLINKS, BENEATH = 0x01, 0x02, 0x04, 0x08  # RESOLVE_* of linux/openat2.h
_NUMBER = 437  # the same on every architecture
_HOW = struct.Struct("=QQQ")
_TRIES = 256  # EAGAIN: something was moved in the middle, and the kernel can't tell what that means
_LIBC = ctypes.CDLL(None, use_errno=True)


def openat2(path: str, flags: int, *, dir_fd: int, mode: int = 0, resolve: int = 0) -> int:
    """A descriptor, close-on-exec. OSError: EXDEV or ELOOP where the path leads over what `resolve` forbids."""
    how = _HOW.pack(flags | os.O_CLOEXEC, mode, resolve)
    for _ in range(_TRIES):
        fd = int(_LIBC.syscall(_NUMBER, dir_fd, os.fsencode(path), how, ctypes.c_size_t(len(how))))
        if fd >= 0:
            return fd
        number = ctypes.get_errno()
        if number not in (errno.EAGAIN, errno.EINTR):
            raise OSError(number, os.strerror(number), path)
    raise PyrunError(f"{path}: it is moved all the time", hint="stop what renames the directories on this path")
