"""Writes a volume's files so that a reader sees all of the old ones or all of the new ones.

    ..2026_01_31_12_00_00.x7k2   the files themselves, never changed once they are shown
    ..data → ..2026_…            replaced by a rename: the one moment of change
    NAME → ..data/NAME           for each first part of a path

The layout is Kubernetes' (pkg/volume/util/atomic_writer.go): programs watch ..data. All is done below one descriptor,
and nothing that is a symlink is followed but `..data`'s name, which is looked at as a name (CVE-2017-1002102).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from collections.abc import Iterator

from .contents import File, Payload

DATA, NEW_DATA = "..data", "..data_tmp"
DIRECTORY_MODE = 0o755
LONGEST_NAME = 255
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_GROUP_READS, _GROUP_ENTERS = 0o440, 0o2550  # what fsGroup adds to files and directories that are read-only


def write_payload(root: int, payload: Payload, group: int | None) -> bool:
    """root: a descriptor of the volume. False where it had these files already. OSError; the old files are in place
    until the new ones are whole."""
    current = _current(root)
    if current is not None and _read(root, current) == _wanted(payload, group):
        _show(root, payload)
        return False
    name = f"..{time.strftime('%Y_%m_%d_%H_%M_%S', time.gmtime())}.{os.urandom(5).hex()}"
    try:
        _write(root, name, payload, group)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(NEW_DATA, dir_fd=root)
        os.symlink(name, NEW_DATA, dir_fd=root)
        os.rename(NEW_DATA, DATA, src_dir_fd=root, dst_dir_fd=root)
    except BaseException:
        shutil.rmtree(name, ignore_errors=True, dir_fd=root)
        raise
    _show(root, payload)
    _clean(root, name)
    return True


def _wanted(payload: Payload, group: int | None) -> dict[str, tuple[bytes, int, int | None, int]]:
    return {path: (file.data, _mode(file, group), group or None, file.user or 0) for path, file in payload.items()}


def _mode(file: File, group: int | None) -> int:
    return file.mode if group is None else file.mode | _GROUP_READS


def _current(root: int) -> str | None:
    try:
        name = os.readlink(DATA, dir_fd=root)
    except (FileNotFoundError, OSError):
        return None
    return name if name.startswith("..") and "/" not in name and name not in ("..", DATA, NEW_DATA) else None


def _read(root: int, name: str) -> dict[str, tuple[bytes, int, int | None, int]]:
    """What is there, in the form of _wanted(). What can't be read is as good as another content."""
    found: dict[str, tuple[bytes, int, int | None, int]] = {}
    try:
        top = os.open(name, _DIRECTORY, dir_fd=root)
    except OSError:
        return found
    try:
        group = os.fstat(top).st_gid or None
        for path, fd in _files(top, ""):
            held = os.fstat(fd)
            found[path] = (_all_of(fd, held.st_size), stat.S_IMODE(held.st_mode), group, held.st_uid)
    except OSError:
        return {"": (b"", 0, None, 0)}
    finally:
        os.close(top)
    return found


def _all_of(fd: int, size: int) -> bytes:
    data = bytearray()
    while len(data) <= size and (part := os.read(fd, size + 1 - len(data))):
        data += part
    return bytes(data)


def _files(directory: int, above: str) -> Iterator[tuple[str, int]]:
    """(path, open descriptor) of each file below; the depth is that of a path that a manifest may have."""
    with os.scandir(directory) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        flags = _DIRECTORY if is_directory else os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(name, flags, dir_fd=directory)
        try:
            if is_directory:
                yield from _files(fd, f"{above}{name}/")
            else:
                yield f"{above}{name}", fd
        finally:
            os.close(fd)


def _write(root: int, name: str, payload: Payload, group: int | None) -> None:
    top = _make_directory(root, name, group)
    try:
        for path, file in payload.items():
            *above, last = path.split("/")
            directory = os.dup(top)
            try:
                for part in above:
                    below = _make_directory(directory, part, group)
                    os.close(directory)
                    directory = below
                _write_file(directory, last, file, group)
            finally:
                os.close(directory)
    finally:
        os.close(top)


def _make_directory(above: int, name: str, group: int | None) -> int:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, DIRECTORY_MODE, dir_fd=above)
    fd = os.open(name, _DIRECTORY, dir_fd=above)
    try:
        if group is not None:
            os.fchown(fd, -1, group)
        os.fchmod(fd, DIRECTORY_MODE | (_GROUP_ENTERS if group is not None else 0))  # whatever our umask
    except BaseException:
        os.close(fd)
        raise
    return fd


def _write_file(directory: int, name: str, file: File, group: int | None) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        left = memoryview(file.data)
        while left:
            left = left[os.write(fd, left) :]
        if group is not None or file.user is not None:
            os.fchown(fd, -1 if file.user is None else file.user, -1 if group is None else group)
        os.fchmod(fd, _mode(file, group))
    finally:
        os.close(fd)


def _show(root: int, payload: Payload) -> None:
    """The links that people see: those that are missing are made, those of files that are gone go."""
    wanted = {path.partition("/")[0] for path in payload}
    for name in sorted(wanted):
        try:
            os.symlink(f"{DATA}/{name}", name, dir_fd=root)
        except FileExistsError:
            continue
    with os.scandir(root) as entries:
        stale = [e.name for e in entries if not e.name.startswith("..") and e.name not in wanted and e.is_symlink()]
    for name in stale:
        os.unlink(name, dir_fd=root)


def _clean(root: int, kept: str) -> None:
    """Files that are not shown any more, and what an agent that was killed had begun."""
    with os.scandir(root) as entries:
        old = [
            e.name for e in entries if e.name.startswith("..2") and e.name != kept and e.is_dir(follow_symlinks=False)
        ]
    for name in old:
        shutil.rmtree(name, dir_fd=root)
