"""Tars as layers have them, and as they should not have them: names, types and headers are written as they are asked
for."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

from pyrun.image import layers


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


def unpack_into(directory: Path, blob: bytes, media_type: str | None = None, **more: Any) -> layers.Unpacked:
    """Unpacks the blob from a memfd."""
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
