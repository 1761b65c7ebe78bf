"""A layer's directory back into a tar: overlayfs' whiteouts become `.wh.` names again.

The tar is not the one that was pulled, for that is not kept: the same files in the order of their names, so that the
same tree always makes the same tar. Links are not followed, and nothing is opened that is no plain file.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from typing import IO, cast

OPAQUE = "trusted.overlay.opaque"
WHITEOUT = ".wh."
OPAQUE_NAME = ".wh..wh..opq"
PLAIN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
KINDS = (
    (stat.S_ISLNK, tarfile.SYMTYPE),
    (stat.S_ISFIFO, tarfile.FIFOTYPE),
    (stat.S_ISCHR, tarfile.CHRTYPE),
    (stat.S_ISBLK, tarfile.BLKTYPE),
    (stat.S_ISDIR, tarfile.DIRTYPE),
)


class Counted:
    """A file to write to, that counts."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._state = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self._state.update(data)
        self.size += len(data)
        return self._file.write(data)

    @property
    def digest(self) -> str:
        return f"sha256:{self._state.hexdigest()}"


def write_tree(directory: str, file: IO[bytes]) -> tuple[str, int]:
    """Writes the layer's tar. Returns (digest, bytes)."""
    out = Counted(file)
    seen: dict[int, str] = {}
    with tarfile.open(
        fileobj=cast(IO[bytes], out), mode="w|", format=tarfile.PAX_FORMAT, errors="surrogateescape"
    ) as tar:
        for path, dirs, files, fd in os.fwalk(directory, follow_symlinks=False):
            dirs.sort()
            base = os.path.relpath(path, directory)
            _add_directory(tar, base, fd)
            for name in sorted(files):
                _add(tar, name if base == "." else f"{base}/{name}", name, fd, seen)
            # A link to a directory is with the directories, and not walked into.
            for name in dirs:
                if stat.S_ISLNK(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                    _add(tar, name if base == "." else f"{base}/{name}", name, fd, seen)
    return out.digest, out.size


def _add_directory(tar: tarfile.TarFile, name: str, fd: int) -> None:
    info = _described("./" if name == "." else name, os.fstat(fd))
    attributes = _attributes(fd)
    opaque = attributes.pop(OPAQUE, b"")
    _note(info, attributes)
    tar.addfile(info)
    if opaque == b"y":
        tar.addfile(tarfile.TarInfo(OPAQUE_NAME if name == "." else f"{name}/{OPAQUE_NAME}"))


def _add(tar: tarfile.TarFile, path: str, name: str, directory: int, seen: dict[int, str]) -> None:
    found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
        head, _, last = path.rpartition("/")
        tar.addfile(tarfile.TarInfo(f"{head}/{WHITEOUT}{last}" if head else f"{WHITEOUT}{last}"))
        return
    info = _described(path, found)
    if found.st_nlink > 1 and (first := seen.setdefault(found.st_ino, path)) != path:
        info.type, info.linkname, info.size = tarfile.LNKTYPE, first, 0
        tar.addfile(info)
    elif stat.S_ISREG(found.st_mode):
        with open(os.open(name, PLAIN, dir_fd=directory), "rb") as file:
            _note(info, _attributes(file.fileno()))
            tar.addfile(info, file)
    else:
        if info.issym():
            info.linkname = os.readlink(name, dir_fd=directory)
        tar.addfile(info)


def _described(path: str, found: os.stat_result) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.mode, info.uid, info.gid = stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid
    info.mtime = int(found.st_mtime)
    info.type = next((kind for is_kind, kind in KINDS if is_kind(found.st_mode)), tarfile.REGTYPE)
    info.size = found.st_size if info.type == tarfile.REGTYPE else 0
    info.devmajor, info.devminor = os.major(found.st_rdev), os.minor(found.st_rdev)
    return info


def _attributes(fd: int) -> dict[str, bytes]:
    """Those that a layer may have; the kernel's own and overlayfs' others are this machine's."""
    names = [name for name in os.listxattr(fd) if name.startswith("user.") or name in ("security.capability", OPAQUE)]
    return {name: os.getxattr(fd, name) for name in sorted(names)}


def _note(info: tarfile.TarInfo, attributes: dict[str, bytes]) -> None:
    for name, value in attributes.items():
        info.pax_headers[f"SCHILY.xattr.{name}"] = value.decode("utf-8", "surrogateescape")  # type: ignore[index]
