"""Removal of directory trees that a container has filled: as deep as it liked, and with what names it liked.

No path below the tree's own is ever followed by string and nothing recurses: a directory that is not empty moves up
beside the top one first, so the depth is never more than two. Few files are the rule here; image layers, with many, are
removed by a program (image/layers.py). What another mount holds is not ours to remove: EXDEV.
"""

from __future__ import annotations

import os

from ..openat2 import NO_MAGICLINKS, NO_SYMLINKS, NO_XDEV, openat2

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_HERE = NO_XDEV | NO_MAGICLINKS | NO_SYMLINKS


def remove_tree(path: str) -> None:
    """With all that is in it; no error where it is not there. OSError, with some of it left. The directory above it is
    ours alone."""
    parent, _, name = path.rpartition("/")
    try:
        above = os.open(parent, _DIRECTORY)
    except FileNotFoundError:
        return
    try:
        top = _enter(above, name)
    except FileNotFoundError:
        return
    else:
        try:
            _empty(top)
        finally:
            os.close(top)
        os.rmdir(name, dir_fd=above)
    finally:
        os.close(above)


def _enter(above: int, name: str) -> int:
    return openat2(name, _DIRECTORY, dir_fd=above, resolve=_HERE)


def _empty(top: int) -> None:
    waiting = _names(top)
    while waiting:
        for name, is_directory in waiting:
            if is_directory:
                _remove(top, name)
            else:
                os.unlink(name, dir_fd=top)
        waiting = _names(top)


def _names(fd: int) -> list[tuple[str, bool]]:
    with os.scandir(fd) as entries:
        return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]


def _remove(top: int, name: str) -> None:
    """A directory in top; those in it that have something in them move to top."""
    fd = _enter(top, name)
    try:
        for child, is_directory in _names(fd):
            if not is_directory:
                os.unlink(child, dir_fd=fd)
                continue
            try:
                os.rmdir(child, dir_fd=fd)
            except OSError:
                os.rename(child, os.urandom(12).hex(), src_dir_fd=fd, dst_dir_fd=top)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=top)
