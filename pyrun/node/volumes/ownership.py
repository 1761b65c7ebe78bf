"""fsGroup: gives a volume to a group, by descriptors, and through no symlink.

Source: kubernetes pkg/volume/volume_linux.go: the group, rw-rw---- and for directories s and x are added; a symlink
changes hands itself. fsGroupChangePolicy is for volumes that outlive a pod, of which there are none here yet.
"""

from __future__ import annotations

import os
import stat

from ...openat2 import NO_MAGICLINKS, NO_SYMLINKS, NO_XDEV, openat2

FILE_BITS, DIRECTORY_BITS = 0o660, 0o2770
DEEPEST = 500  # directories that are open at a time
_STAY = NO_XDEV | NO_MAGICLINKS | NO_SYMLINKS
_LOOK = os.O_PATH | os.O_NOFOLLOW
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def set_group(root: int, group: int) -> None:
    """Of all that lies on the volume's own mount. root: a descriptor of its directory, not O_PATH. OSError."""
    waiting = [(os.dup(root), _names(root))]
    try:
        while waiting:
            directory, names = waiting[-1]
            if not names:
                _give(directory, group)  # last, so that a walk that was broken off begins anew
                os.close(waiting.pop()[0])
                continue
            name = names.pop()
            if (below := _visit(directory, name, group)) is None:
                continue
            if len(waiting) >= DEEPEST:
                os.close(below)
                raise OSError(40, f"directories are nested more than {DEEPEST} deep", name)
            waiting.append((below, _names(below)))
    finally:
        for fd, _ in waiting:
            os.close(fd)


def _names(directory: int) -> list[str]:
    return os.listdir(directory)


def _visit(directory: int, name: str, group: int) -> int | None:
    """Gives a file away; of a directory a descriptor. What has gone meanwhile, or lies on another mount, is left."""
    try:
        fd = openat2(name, _LOOK, dir_fd=directory, resolve=NO_XDEV | NO_MAGICLINKS)
    except OSError:
        return None
    try:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            return openat2(".", _DIRECTORY, dir_fd=fd, resolve=_STAY)
        _give(fd, group)
    finally:
        os.close(fd)
    return None


def _give(fd: int, group: int) -> None:
    """/proc, as an O_PATH descriptor has no fchmod(2); it leads to the inode that is open, whatever its path is now."""
    path = f"/proc/self/fd/{fd}"
    found = os.fstat(fd)
    os.chown(path, -1, group)
    if stat.S_ISLNK(found.st_mode):
        return
    bits = DIRECTORY_BITS if stat.S_ISDIR(found.st_mode) else FILE_BITS
    os.chmod(path, stat.S_IMODE(found.st_mode) | bits)
