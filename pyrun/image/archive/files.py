"""An archive's files by their names: a tar, plain or by gzip, or a directory.

Who wrote it is not known. A tar is only looked at, never unpacked: a member is bytes at a place in the file, and a link
in it means another member of it. A directory's files are opened beneath it, links in it not followed.
"""

from __future__ import annotations

import gzip
import os
import posixpath
import tarfile
import zlib
from collections.abc import Iterator
from typing import IO

from pyrun.errors import InvalidArgument, NotFound, PyrunError, reason

MEMBERS_MOST = 100_000
HEADER_MOST = 64 << 10
LINKS_MOST = 8
PIECE = 1 << 20
GZIP = b"\x1f\x8b"


class Files:
    """Where an archive's bytes come from. Use it as a context."""

    def __enter__(self) -> Files:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None: ...

    def has(self, name: str) -> bool:
        raise NotImplementedError

    def size(self, name: str) -> int:
        """Raises NotFound."""
        raise NotImplementedError

    def pieces(self, name: str) -> Iterator[bytes]:
        """The file's bytes. Raises NotFound."""
        raise NotImplementedError

    def read(self, name: str, most: int) -> bytes:
        if (size := self.size(name)) > most:
            raise InvalidArgument(f"{name}: {size} bytes", hint=f"the most that is read is {most}")
        return b"".join(self.pieces(name))


class Directory(Files):
    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self._fd)

    def _open(self, name: str) -> IO[bytes]:
        """Each part by itself, so that no link is followed."""
        *parents, last = name.split("/")
        at = os.dup(self._fd)
        try:
            for part in parents:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                at, old = os.open(_plain(part, name), flags, dir_fd=at), at
                os.close(old)
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            file = open(os.open(_plain(last, name), flags, dir_fd=at), "rb")
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"{name} is not in the layout")
        except OSError as error:
            raise InvalidArgument(f"{name}: {reason(error)}")
        finally:
            os.close(at)
        return file

    def has(self, name: str) -> bool:
        try:
            self._open(name).close()
        except NotFound:
            return False
        return True

    def size(self, name: str) -> int:
        with self._open(name) as file:
            return os.fstat(file.fileno()).st_size

    def pieces(self, name: str) -> Iterator[bytes]:
        with self._open(name) as file:
            while data := file.read(PIECE):
                yield data


class _Member(tarfile.TarInfo):
    """A header whose extensions are bounded: they are read into memory before their file is."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        extensions = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, b"X")
        if self.type in extensions and self.size > HEADER_MOST:
            raise InvalidArgument(f"the archive has a header of {self.size} bytes", hint=f"{HEADER_MOST} is the most")
        found: tarfile.TarInfo = super()._proc_member(tar)  # type: ignore[misc]
        return found


class Tar(Files):
    """file: seekable; closed with this."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._members: dict[str, tarfile.TarInfo] = {}
        try:
            with tarfile.open(fileobj=file, mode="r:", tarinfo=_Member) as tar:
                for count, member in enumerate(tar):
                    if count >= MEMBERS_MOST:
                        raise InvalidArgument(f"the archive has more than {MEMBERS_MOST} files")
                    self._members[posixpath.normpath(member.name)] = member
        except (tarfile.TarError, ValueError, OverflowError) as error:
            raise InvalidArgument(f"no tar: {error}", hint="import takes an OCI layout or what docker save writes")

    def close(self) -> None:
        self._file.close()

    def _member(self, name: str) -> tarfile.TarInfo:
        for _ in range(LINKS_MOST):
            member = self._members.get(posixpath.normpath(name))
            if member is None:
                raise NotFound(f"{name} is not in the archive")
            if member.issym():  # docker save of old has them for a layer that occurs twice
                name = posixpath.join(posixpath.dirname(posixpath.normpath(name)), member.linkname)
            elif member.islnk():
                name = member.linkname
            elif not member.isreg() or member.issparse():
                raise InvalidArgument(f"{name}: no plain file in the archive")
            else:
                return member
        raise InvalidArgument(f"{name}: a link to a link to a link")

    def has(self, name: str) -> bool:
        return posixpath.normpath(name) in self._members

    def size(self, name: str) -> int:
        return self._member(name).size

    def pieces(self, name: str) -> Iterator[bytes]:
        member = self._member(name)
        at, left = member.offset_data, member.size
        while left:
            data = os.pread(self._file.fileno(), min(PIECE, left), at)
            if not data:
                raise InvalidArgument(f"{name}: the archive ends in the middle of it")
            yield data
            at, left = at + len(data), left - len(data)


def open_files(path: str, spool: str) -> Files:
    """The files of a directory, a tar, or `-`, standard input. spool: a directory for what can't be read twice."""
    if path != "-" and os.path.isdir(path):
        return Directory(path)
    try:
        file: IO[bytes] = open(0, "rb", closefd=False) if path == "-" else open(path, "rb")
    except OSError as error:
        raise PyrunError(f"{path}: {reason(error)}")
    try:
        begin = file.peek(2)[:2]  # type: ignore[attr-defined]
        if file.seekable() and begin != GZIP:
            return Tar(file)
        return Tar(_spooled(file, spool, begin == GZIP))
    except (OSError, EOFError, zlib.error) as error:
        raise PyrunError(f"{path}: {error}")


def _spooled(file: IO[bytes], spool: str, packed: bool) -> IO[bytes]:
    """A copy on the disk that goes with its descriptor."""
    copy = open(os.open(spool, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600), "w+b")
    room = os.fstatvfs(copy.fileno())
    left = room.f_bavail * room.f_frsize // 2
    source: IO[bytes] = gzip.GzipFile(fileobj=file) if packed else file  # type: ignore[assignment]
    while data := source.read(PIECE):
        if (left := left - len(data)) < 0:
            raise InvalidArgument("the archive takes more than half of the disk's room")
        copy.write(data)
    copy.seek(0)
    return copy


def _plain(part: str, name: str) -> str:
    if part in ("", ".", ".."):
        raise InvalidArgument(f"{name}: no name of a file in the layout")
    return part
