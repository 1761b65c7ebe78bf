"""Tars as layers have them, and as they should not have them: names, types and headers are written as they are asked
for."""

from __future__ import annotations

import fcntl
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pyrun.image import erofs, layers
from tests.support.container.runner import wait_for

_mounted: list[Path] | None = None
NO_DISKS = ("tmpfs", "overlayfs", "ramfs")


class Tar:
    """A tar that grows by chained calls."""

    def __init__(self, form: int = tarfile.PAX_FORMAT) -> None:
        self._out = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._out, mode="w", format=form, errors="surrogateescape")
        self._done = b""

    def add(self, name: str, kind: bytes, data: bytes = b"", **more: Any) -> Tar:
        info = tarfile.TarInfo(name)
        info.type, info.size, info.mtime = kind, len(data), 1_000_000_000
        for key, value in more.items():
            setattr(info, key, value)
        self._tar.addfile(info, io.BytesIO(data))
        return self

    def file(self, name: str, data: bytes = b"", **more: Any) -> Tar:
        return self.add(name, tarfile.REGTYPE, data, **more)

    def dir(self, name: str, **more: Any) -> Tar:
        return self.add(name, tarfile.DIRTYPE, **{"mode": 0o755, **more})

    def symlink(self, name: str, target: str, **more: Any) -> Tar:
        return self.add(name, tarfile.SYMTYPE, linkname=target, **more)

    def link(self, name: str, target: str, **more: Any) -> Tar:
        return self.add(name, tarfile.LNKTYPE, linkname=target, **more)

    def fifo(self, name: str, **more: Any) -> Tar:
        return self.add(name, tarfile.FIFOTYPE, **more)

    def device(self, name: str, major: int, minor: int, **more: Any) -> Tar:
        return self.add(name, tarfile.CHRTYPE, devmajor=major, devminor=minor, **more)

    def raw(self, data: bytes) -> Tar:
        """Bytes that no library would write."""
        self._out.write(data)
        return self

    def bytes(self) -> bytes:
        if not self._done:
            self._tar.close()
            self._done = self._out.getvalue()
        return self._done


def why_no_images() -> str | None:
    """Why this machine has no EROFS images of layers, by facts that are not pyrun's."""
    release = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
    if release < (6, 12):
        return "EROFS images need Linux 6.12"
    told = subprocess.run(["stat", "-f", "-c", "%T", tempfile.gettempdir()], capture_output=True, check=True, text=True)
    kind = told.stdout.strip()
    return f"EROFS images need a disk's file system below {tempfile.gettempdir()}" if kind in NO_DISKS else None


needs_images = pytest.mark.skipif(why_no_images() is not None, reason=str(why_no_images()))


@contextmanager
def as_images() -> Iterator[None]:
    """Within it unpack_into() makes EROFS images, mounted on the directories that it is given."""
    global _mounted
    if why := why_no_images():
        pytest.skip(why)
    _mounted = []
    try:
        yield
    finally:
        mounted, _mounted = _mounted, None
        for path in reversed(mounted):
            subprocess.run(["umount", "-l", path], check=True)


def unpack_into(directory: Path, blob: bytes, media_type: str | None = None, **more: Any) -> layers.Unpacked:
    """Unpacks the blob from a memfd."""
    if _mounted is None:
        return unpack_plainly(directory, blob, media_type, **more)
    layer = directory.with_name(f"{directory.name}-image-{len(_mounted)}")
    shutil.rmtree(layer, ignore_errors=True)
    layer.mkdir()
    made = unpack_plainly(layer, blob, media_type, kind=layers.EROFS, **more)
    erofs.mount(str(layer))
    _mounted.append(layer / erofs.ROOT)
    subprocess.run(["mount", "--bind", layer / erofs.ROOT, directory], check=True)
    _mounted.append(directory)
    return made


def unpack_plainly(directory: Path, blob: bytes, media_type: str | None = None, **more: Any) -> layers.Unpacked:
    """The same, whatever as_images() says."""
    fd = os.memfd_create("blob")
    into = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(blob)
        os.lseek(fd, 0, os.SEEK_SET)
        return layers.unpack(fd, media_type, into, **more)
    finally:
        os.close(into)
        os.close(fd)


def snapshot(root: Path) -> dict[str, tuple[object, ...]]:
    """All that there is to see of a tree: kind, mode, owner, times of change, size, contents, link, attributes, and
    what is one file by several names. Directories' sizes are the file system's."""
    found: dict[str, tuple[object, ...]] = {}
    first: dict[int, str] = {}
    names = sorted(os.path.join(top, name) for top, dirs, files in os.walk(root) for name in dirs + files)
    for name in [str(root), *names]:
        st = os.lstat(name)
        kind = st.st_mode >> 12
        contents: object = None
        if kind == 8:
            contents = Path(name).read_bytes() if st.st_size < 1 << 20 else st.st_size
        elif kind == 10:
            contents = os.readlink(name)
        same = first.setdefault(st.st_ino, name) if kind != 4 else ""
        attributes = tuple((key, os.getxattr(name, key, follow_symlinks=False)) for key in sorted(_attributes(name)))
        size = st.st_size if kind != 4 else 0
        relative = os.path.relpath(name, root)
        same = os.path.relpath(same, root) if same else ""
        found[relative] = (
            st.st_mode,
            st.st_uid,
            st.st_gid,
            st.st_mtime_ns,
            size,
            contents,
            same,
            attributes,
            st.st_rdev,
        )
    return found


def _attributes(name: str) -> list[str]:
    return [key for key in os.listxattr(name, follow_symlinks=False) if not key.startswith("security.selinux")]


def wait_unfilled(root: Path) -> None:
    """Until nobody fills a directory of a store's ingest/: what unpacks for a process that was killed ends after it."""
    wait_for(lambda: not any(_is_held(path) for path in (root / "ingest").glob("*")), 60, "what unpacks to end")


def _is_held(path: Path) -> bool:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
