"""Seals files of logs that are not written to any more: each becomes a block in the store, and then the file goes.

Each file is held by descriptor from when it is first seen, so that one which somebody else removes meanwhile (a
kubelet, with its pod, or for there are too many) is sealed all the same. A block has its name once it is whole and on
the disk; the file goes after that. A kill in between leaves both, which readers take as one (tree.py), and the next
start goes on.
"""

from __future__ import annotations

import errno
import gzip
import os
import time
import zlib
from contextlib import suppress
from dataclasses import dataclass

from ..errors import reason
from ..inotify import CREATE, DELETE, MOVED_TO
from .block import About, Block, write_block
from .line import SECOND
from .tree import BLOCKS, Container, Segment, collect_containers, open_log, parse_segment
from .watched import Watched

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .store import LogStore

# A log that was set aside, and a new one made, has no writer any more when it has been still for so long.
STILL = 30 * SECOND
# One that was removed, when still for so long.
GONE_STILL = 2 * SECOND
PARTIAL = ".partial"
File = tuple[int, int]


@dataclass(slots=True)
class Held:
    """A file that is not sealed yet. seen: in the last look."""

    fd: int
    container: Container
    segment: Segment
    seen: bool = True


class Sealer:
    """root: the logs of pods. warn: told what could not be sealed, which is tried again with each look."""

    def __init__(self, root: str, store: LogStore, warn: Callable[[str], None]) -> None:
        self._root = root
        self._store = store
        self._warn = warn
        self._blocks = os.path.join(store.directory, BLOCKS)
        self._held: dict[File, Held] = {}
        self._watched = Watched(CREATE | DELETE | MOVED_TO)
        _remove_partial(self._blocks)

    def wait(self, seconds: float) -> None:
        """Until files may have come or gone, or for so long."""
        self._watched.wait(seconds)

    def look(self) -> int:
        """Seals what can be; how many files that were."""
        containers = [one for one in collect_containers(self._root, self._store.directory) if _is_there(one)]
        parents = {os.path.dirname(one.directory) for one in containers}
        self._watched.set([self._root, *parents, *(one.directory for one in containers)])
        for held in self._held.values():
            held.seen = False
        done = sum(self._seal(held) for one in containers for held in self._closed(one))
        return done + sum(self._seal(held) for held in list(self._held.values()) if not held.seen and _is_still(held))

    def _closed(self, container: Container) -> list[Held]:
        """Of a container's files those that have no writer any more."""
        files = sorted(self._hold(container), key=lambda one: one.segment.place)
        closed = []
        for number, held in enumerate(files):
            later = [os.fstat(one.fd).st_size for one in files[number + 1 :]]
            still = time.time_ns() - os.fstat(held.fd).st_mtime_ns > STILL
            if held.segment.rotated and (any(later) or (later and still)):
                closed.append(held)
        return closed

    def _hold(self, container: Container) -> Iterator[Held]:
        """What is in its directory."""
        for name in sorted(os.listdir(container.directory) if _is_there(container) else ()):
            segment = parse_segment(container.directory, name)
            fd = open_log(segment.path) if segment else None
            if segment is None or fd is None:
                continue
            about = os.fstat(fd)
            held = self._held.get((about.st_dev, about.st_ino))
            if held is None:
                held = self._held[about.st_dev, about.st_ino] = Held(fd, container, segment)
            else:
                os.close(fd)
                held.segment, held.seen = segment, True
            yield held

    def _seal(self, held: Held) -> bool:
        """Whether it was sealed; then it is not held any more."""
        segment = held.segment
        if not segment.rotated:
            segment = self._named(held)
        try:
            about = self._find(held, segment) or self._write(held, segment)
            if about is None:
                return False
            _unlink(held)
        except (OSError, EOFError, zlib.error) as error:
            text = reason(error) if isinstance(error, OSError) else str(error)
            self._warn(f"{segment.path} can't be sealed: {text}")
            if not (isinstance(error, OSError) and error.errno == errno.ENOSPC and os.fstat(held.fd).st_nlink == 0):
                return False
            # A removed file that is held takes room which others need more.
            self._store.count_dropped("disk full", held.container, _count_lines(held))
        self._let_go(held)
        return True

    def _named(self, held: Held) -> Segment:
        """The name of a log that was removed while it was written to: by when that was."""
        at = os.fstat(held.fd).st_mtime
        directory = os.path.dirname(self._path(held.container, held.segment))
        while True:
            stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(at))
            segment = Segment(f"{held.segment.path}.{stamp}", held.segment.attempt, stamp, compressed=False)
            path = os.path.join(directory, os.path.basename(self._path(held.container, segment)))
            if not os.path.lexists(path) or self._find(held, segment):
                return segment
            at += 1

    def _path(self, container: Container, segment: Segment) -> str:
        pod = os.path.basename(os.path.dirname(container.directory))
        return os.path.join(self._blocks, pod, container.name, f"{segment.attempt}.log.{segment.rotated}.zst")

    def _find(self, held: Held, segment: Segment) -> About | None:
        """What was sealed of it, if that is all of it. A kubelet's compressed file is another one than what it was made
        of, which may have been sealed."""
        fd = open_log(self._path(held.container, segment))
        if fd is None:
            return None
        try:
            about = Block(fd).about
        except ValueError:
            return None
        finally:
            os.close(fd)
        if segment.compressed:
            return about if about.size % (1 << 32) == _unpacked_size(held.fd) else None
        now = os.fstat(held.fd)
        return about if (about.original, about.size) == ((now.st_dev, now.st_ino), now.st_size) else None

    def _write(self, held: Held, segment: Segment) -> About | None:
        path = self._path(held.container, segment)
        directory, name = os.path.split(path)
        _make_directories(self._blocks, directory)
        before = os.fstat(held.fd)
        partial = os.path.join(directory, f".{name}{PARTIAL}")
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            about = write_block(_reader(held), (before.st_dev, before.st_ino), fd)
            os.rename(partial, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(partial)
            raise
        finally:
            os.close(fd)
        _sync(directory)
        self._store.add(about)
        return about if os.fstat(held.fd).st_size == before.st_size else None  # it has grown: once more

    def _let_go(self, held: Held) -> None:
        about = os.fstat(held.fd)
        self._held.pop((about.st_dev, about.st_ino))
        os.close(held.fd)

    def close(self) -> None:
        """Seals what was removed, as far as it was written to: with its descriptor its lines would go."""
        try:
            for held in [one for one in self._held.values() if os.fstat(one.fd).st_nlink == 0]:
                self._seal(held)
        finally:
            for held in list(self._held.values()):
                self._let_go(held)
            self._watched.close()


def _is_there(container: Container) -> bool:
    return os.path.isdir(container.directory)


def _is_still(held: Held) -> bool:
    """Of a file that has not been seen: it was removed, and nobody writes to it."""
    about = os.fstat(held.fd)
    return about.st_nlink == 0 and time.time_ns() - about.st_mtime_ns > GONE_STILL


def _reader(held: Held) -> Callable[[int], bytes]:
    os.lseek(held.fd, 0, os.SEEK_SET)
    if held.segment.compressed:
        return gzip.GzipFile(fileobj=open(held.fd, "rb", closefd=False)).read1
    return lambda size: os.read(held.fd, size)


def _count_lines(held: Held) -> int:
    read = _reader(held)
    return sum(data.count(b"\n") for data in iter(lambda: read(1 << 18), b""))


def _unpacked_size(fd: int) -> int:
    """As gzip's trailer has it, modulo 2^32."""
    size = os.fstat(fd).st_size
    return int.from_bytes(os.pread(fd, 4, max(0, size - 4)), "little")


def _unlink(held: Held) -> None:
    """Removes the file, if its name is still its own."""
    directory, name = os.path.split(held.segment.path)
    try:
        at = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return  # the pod is gone
    try:
        now, ours = os.stat(name, dir_fd=at, follow_symlinks=False), os.fstat(held.fd)
        if (now.st_dev, now.st_ino) == (ours.st_dev, ours.st_ino):
            os.unlink(name, dir_fd=at)
    except FileNotFoundError:
        pass
    finally:
        os.close(at)


def _make_directories(root: str, directory: str) -> None:
    """Each is on the disk before something is in it."""
    made = []
    path = directory
    while path != root and not os.path.isdir(path):
        made.append(path)
        path = os.path.dirname(path)
    for path in reversed(made):
        os.mkdir(path, 0o700)
        _sync(os.path.dirname(path))


def _sync(directory: str) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _remove_partial(blocks: str) -> None:
    """What a kill has left half written."""
    for directory, _, names in os.walk(blocks):
        for name in names:
            if name.endswith(PARTIAL):
                os.unlink(os.path.join(directory, name))
