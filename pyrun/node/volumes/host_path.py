"""hostPath: what is there must be of the type that the pod names; with …OrCreate it is made. It is never removed.

Source: kubernetes pkg/volume/hostpath/host_path.go (checkTypeInternal).
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable

from ...errors import reason
from .errors import VolumeError

_CHECKS: dict[str, tuple[str, Callable[[int], bool]]] = {
    "Directory": ("a directory", stat.S_ISDIR),
    "DirectoryOrCreate": ("a directory", stat.S_ISDIR),
    "File": ("a file", stat.S_ISREG),
    "FileOrCreate": ("a file", stat.S_ISREG),
    "Socket": ("a socket", stat.S_ISSOCK),
    "CharDevice": ("a character device", stat.S_ISCHR),
    "BlockDevice": ("a block device", stat.S_ISBLK),
}
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFREG: "a file",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFIFO: "a FIFO",
}


def check_host_path(volume: str, path: str, type: str) -> None:
    """VolumeError says what is there instead. Symlinks on the way are the host's, and followed."""
    if not type:
        return
    words, fits = _CHECKS[type]
    try:
        if type == "DirectoryOrCreate":
            with contextlib.suppress(FileExistsError):
                os.makedirs(path, 0o755, exist_ok=True)
        elif type == "FileOrCreate":
            with contextlib.suppress(FileExistsError):
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
        found = os.stat(path)
    except OSError as error:
        raise VolumeError(volume, f"hostPath type check failed: {path} is not {words}: {reason(error)}") from None
    if not fits(found.st_mode):
        there = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise VolumeError(volume, f"hostPath type check failed: {path} is not {words}, it is {there}")
