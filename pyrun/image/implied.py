"""Directories that a layer has entries in and no entry for: they are to be what the layers below say.

A layer is unpacked by itself, for any image, so there these are 0755 of root; and as overlayfs shows a directory as the
topmost layer has it, a /tmp of 1777 below would be lost. So an image with such directories gets one more layer at its
top, of nothing but them and their parents, with the owner, mode, time and attributes of the topmost layer that has an
entry for each. That is what unpacking all layers into one directory would have left (and what containerd does).
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pyrun.image.merged import Found, look_up

FORMAT = b"pyrun: implied directories, 1\n"
OVERLAY = ("trusted.overlay.", "user.overlay.")  # overlayfs' own attributes: they are about a layer, not a directory


@dataclass(frozen=True)
class Kept:
    """path: of a directory in the image. like: where it is on the node, as the image shall show it."""

    path: str
    like: str


def layer_id(diff_ids: Iterable[str]) -> str:
    """The name of that layer, which depends on all others, as a diffID has it."""
    return "sha256:" + hashlib.sha256(FORMAT + "\n".join(diff_ids).encode()).hexdigest()


def plan_implied(lowers: Sequence[str], implied: Sequence[frozenset[str]]) -> list[Kept]:
    """Which directories that layer has, parents first; none: there is no need for one.

    lowers: the layers' directories, topmost first. implied: for each, what its tar only implied ("a/b")."""
    wanted: dict[str, str] = {}
    for path in sorted({path for one in implied for path in one}):
        found = look_up(tuple(lowers), path)
        if found is None:
            continue
        with found:
            if found.name is not None:
                continue
            here, like = _entry(found, lowers, implied)
            if like is not None and like != found.parts[0]:
                wanted[here] = like
    if not wanted:
        return []
    parents = {above for path in wanted for above in _parents(path)} - wanted.keys()
    for path in parents:
        found = look_up(tuple(lowers), path)
        if found is not None:
            with found:
                wanted[path] = _entry(found, lowers, implied)[1] or found.parts[0]
    return [Kept(path, wanted[path]) for path in sorted(wanted)]


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts))]


def _entry(found: Found, lowers: Sequence[str], implied: Sequence[frozenset[str]]) -> tuple[str, str | None]:
    """(its path in the image, where the topmost layer with an entry for it has it)."""
    here = ""
    for part in found.parts:
        at = next(i for i, lower in enumerate(lowers) if part.startswith(f"{lower}/"))
        here = part[len(lowers[at]) + 1 :]
        if here not in implied[at]:
            return here, part
    return here, None


def make_implied(directory: int, kept: Iterable[Kept], topmost: str) -> tuple[int, int]:
    """Makes them in `directory`, a descriptor of an empty one, which becomes like the root of `topmost`. Returns
    (bytes, inodes). OSError."""
    made = [("", topmost), *((one.path, one.like) for one in kept)]
    for path, _ in made[1:]:
        os.mkdir(path, 0o700, dir_fd=directory)
    counted = 0
    for path, like in reversed(made):  # the deepest first: what is made in a directory changes its time
        counted += _make_like(directory, path, like)
    return counted, len(made)


def _make_like(directory: int, path: str, like: str) -> int:
    source = os.open(like, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    target = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        status = os.fstat(source)
        os.fchown(target, status.st_uid, status.st_gid)
        os.fchmod(target, stat.S_IMODE(status.st_mode))
        for name in os.listxattr(source):
            if not name.startswith(OVERLAY):
                _copy_attribute(source, target, name)
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
        return os.fstat(target).st_blocks * 512
    finally:
        os.close(source)
        os.close(target)


def _copy_attribute(source: int, target: int, name: str) -> None:
    try:
        os.setxattr(target, name, os.getxattr(source, name))
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
            raise


__all__ = ["Kept", "layer_id", "make_implied", "plan_implied"]
