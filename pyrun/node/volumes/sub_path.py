"""subPath: a path in a volume, whose files the containers may change while we look.

The kernel walks it from the volume's descriptor and refuses what leads out (RESOLVE_BENEATH), at the same moment as it
opens it; what is mounted is that descriptor. So there is no time between a check and a use, in which CVE-2017-1002101
and CVE-2021-25741 had their symlinks swapped. Links inside the volume work, as the files of a configMap are such.
"""

from __future__ import annotations

import contextlib
import os

from ...openat2 import BENEATH, NO_MAGICLINKS, openat2

INSIDE = BENEATH | NO_MAGICLINKS
_FOUND = os.O_PATH | os.O_CLOEXEC
_MADE = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_sub_path(root: int, path: str, *, make: bool) -> int:
    """An O_PATH descriptor of what is there. make: directories that are missing are made, with the mode of the volume.

    OSError: EXDEV where it leads out of the volume."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts:
        return os.open(".", _MADE, dir_fd=root)
    try:
        return openat2("/".join(parts), _FOUND, dir_fd=root, resolve=INSIDE)
    except FileNotFoundError:
        if not make:
            raise
    mode = os.fstat(root).st_mode & 0o7777
    here, left = _deepest(root, parts)
    try:
        for part in left:
            below = _make(here, part, mode)
            os.close(here)
            here = below
    except BaseException:
        os.close(here)
        raise
    return here


def _deepest(root: int, parts: list[str]) -> tuple[int, list[str]]:
    """(the deepest directory on the way that is there, what is missing below it)."""
    for count in range(len(parts) - 1, 0, -1):
        with contextlib.suppress(FileNotFoundError):
            path = "/".join(parts[:count])
            return openat2(path, _FOUND | os.O_DIRECTORY, dir_fd=root, resolve=INSIDE), parts[count:]
    return os.open(".", _MADE, dir_fd=root), parts


def _make(directory: int, name: str, mode: int) -> int:
    """A directory that is missing; a symlink that has come in its place meanwhile is ENOTDIR or ELOOP."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, mode & 0o777, dir_fd=directory)
        fd = os.open(name, _MADE, dir_fd=directory)
        try:
            os.chmod(f"/proc/self/fd/{fd}", mode)  # whatever our umask
        except BaseException:
            os.close(fd)
            raise
        return fd
    return os.open(name, _MADE, dir_fd=directory)
