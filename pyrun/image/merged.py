"""A path in an image, looked up through its layers as overlayfs would show it, without mounting anything.

A directory is what all layers have of it, down to one that is opaque; anything else is the topmost layer's; a whiteout
ends the search. Symlinks are followed here and stay in the image, as does "..": each component is opened from the
descriptor of its directory, never by a path (CVE-2026-47262, CVE-2024-9676).
"""

from __future__ import annotations

import errno
import os
import stat

from pyrun.errors import FailedPrecondition, InvalidArgument, reason

MOST_LINKS = 40
OPAQUE = "trusted.overlay.opaque"
DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Found:
    """Where a path leads: the directories that make it up, topmost first, or one file. parts: host paths of the same;
    close() when done."""

    __slots__ = ("directories", "name", "parts")

    def __init__(self, directories: list[int], parts: list[str], name: str | None = None) -> None:
        self.directories = directories  # with a name: that of the directory that the file is in
        self.parts = parts
        self.name = name

    def close(self) -> None:
        for fd in self.directories:
            os.close(fd)
        self.directories = []

    def __enter__(self) -> Found:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def look_up(lowers: tuple[str, ...], path: str) -> Found | None:
    """None where there is nothing. lowers: the layers' directories, topmost first. FailedPrecondition where a layer is
    gone or can't be read; InvalidArgument for a circle of symlinks."""
    try:
        return _walk(lowers, path)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InvalidArgument(f"{path} in the image: too many levels of symbolic links") from None
        raise FailedPrecondition(f"{path} in the image: {reason(error)}", hint="pull the image again") from None


def _walk(lowers: tuple[str, ...], path: str) -> Found | None:
    waiting, links = [part for part in path.split("/") if part not in ("", ".")], 0
    done: list[str] = []
    here = _root(lowers)
    try:
        while waiting:
            name = waiting.pop(0)
            if name == "..":
                done = done[:-1]
                here.close()
                waiting, done = [*done, *waiting], []
                here = _root(lowers)
                continue
            below = _step(here, name)
            if below is None:
                return None
            if below.name is None:
                here.close()
                here = below
                done.append(name)
                continue
            with below:
                target = _link(below)
            if target is None:
                if waiting:
                    return None  # a file where a directory should be
                with here:
                    return _step(here, name)
            links += 1
            if links > MOST_LINKS:
                raise OSError(errno.ELOOP, "")
            parts = [part for part in target.split("/") if part not in ("", ".")]
            waiting = [*([] if target.startswith("/") else done), *parts, *waiting]
            done = []
            here.close()
            here = _root(lowers)
        kept, here = here, Found([], [])
        return kept
    finally:
        here.close()


def _root(lowers: tuple[str, ...]) -> Found:
    found = Found([], [])
    try:
        for path in lowers:
            fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            found.directories.append(fd)
            found.parts.append(path)
            if _is_opaque(fd):
                break
    except BaseException:
        found.close()
        raise
    return found


def _step(here: Found, name: str) -> Found | None:
    """What `name` is in a directory."""
    below = Found([], [])
    try:
        for fd, part in zip(here.directories, here.parts, strict=True):
            try:
                entry = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISCHR(entry.st_mode) and entry.st_rdev == 0:
                break
            if not stat.S_ISDIR(entry.st_mode):
                if not below.directories:
                    return Found([os.dup(fd)], [f"{part}/{name}"], name)
                break
            below.directories.append(os.open(name, DIRECTORY, dir_fd=fd))
            below.parts.append(f"{part}/{name}")
            if _is_opaque(below.directories[-1]):
                break
    except BaseException:
        below.close()
        raise
    return below if below.directories else None


def _link(found: Found) -> str | None:
    try:
        return os.readlink(found.name or "", dir_fd=found.directories[0])
    except OSError as error:
        if error.errno == errno.EINVAL:
            return None
        raise


def _is_opaque(fd: int) -> bool:
    """By the descriptor's own name in /proc, as an O_PATH descriptor has no attributes to read."""
    try:
        return os.getxattr(f"/proc/self/fd/{fd}", OPAQUE) == b"y"
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP, errno.EPERM):
            return False
        raise


def read_file(lowers: tuple[str, ...], path: str, limit: int) -> bytes | None:
    """A regular file's bytes, None where there is none. InvalidArgument when it is larger, or is something else: a FIFO
    would make us wait, a device would have no end (CVE-2025-4437)."""
    found = look_up(lowers, path)
    if found is None:
        return None
    with found:
        if found.name is None:
            raise InvalidArgument(f"{path} in the image is a directory")
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        # What it is comes first: opening a device can do things.
        if not stat.S_ISREG(os.stat(found.name, dir_fd=found.directories[0], follow_symlinks=False).st_mode):
            raise InvalidArgument(f"{path} in the image is no regular file")
        fd = os.open(found.name, flags, dir_fd=found.directories[0])
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise InvalidArgument(f"{path} in the image is no regular file")
            data = bytearray()
            while len(data) <= limit and (part := os.read(fd, limit + 1 - len(data))):
                data += part
        finally:
            os.close(fd)
    if len(data) > limit:
        raise InvalidArgument(f"{path} in the image is larger than {limit} bytes")
    return bytes(data)
