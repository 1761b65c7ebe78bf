"""Follows logs as they are written: over rotations, restarts of containers, and pods that come and go.

A file is held by descriptor and read to its end even when its name means another file by now. The next file of a
container is taken when something is in it, since its writer goes on in the old one until then. inotify tells when to
look, but nothing relies upon it: there is a look every LOOK seconds anyway.
"""

from __future__ import annotations

import gzip
import os
import select
import time
from dataclasses import dataclass, field

from ..errors import PyrunError
from ..inotify import CREATE, DELETE, MODIFY, MOVED_TO, Watch
from .line import Joiner, Line
from .tree import Container, collect_containers, collect_segments, open_segment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .query import Query, Where
    from .tree import Segment

LOOK = 1.0
# A busy writer wakes us at each write: what comes within this time is read in one go.
SHORTLY = 0.05
CHUNK = 1 << 16
# Reads of one container before the others have their turn.
BURST = 64
WATCHED = CREATE | DELETE | MODIFY | MOVED_TO

Place = tuple[int, str]


@dataclass(slots=True)
class Cursor:
    """Where a container is read. file: what is read, None before the first. floor: (attempt, stamp) of the newest
    rotated file that has been read, or was old when we began."""

    container: Container
    file: _File | None = None
    floor: Place = (-1, "")
    attempt: int = -1
    rest: bytes = b""
    joiner: Joiner = field(default_factory=Joiner)

    def start_at_end(self) -> None:
        """Passes over what is there."""
        segments = collect_segments(self.container)
        if segments and (file := _File.open(segments[-1])) is not None:
            file.to_end()
            self._take(segments[-1], file, segments)

    def read(self) -> Iterator[Line]:
        """What has come since."""
        for _ in range(BURST):
            data = self.file.read() if self.file else b""
            if not data:
                found = self._next()
                if found is None:
                    return
                # The old file's writer is done once there is something in the next one.
                data = self.file.read() if self.file else b""
                if data:
                    found[1].close()
                else:
                    yield from self._take(*found)
                    continue
            *raws, self.rest = (self.rest + data).split(b"\n")
            yield from (line for raw in raws if (line := self.joiner.add(raw)))

    def _next(self) -> tuple[Segment, _File, list[Segment]] | None:
        """The file that follows the one that is read, if something is in it."""
        segments = collect_segments(self.container)
        for segment in segments:
            if _place(segment) <= self.floor:
                continue
            file = _File.open(segment)
            if file is None:
                continue
            if self.file is not None and file.inode == self.file.inode:
                self.floor = max(self.floor, _place(segment)) if segment.rotated else self.floor
            elif file.size():
                return segment, file, segments
            file.close()
        return None

    def _take(self, segment: Segment, file: _File, segments: list[Segment]) -> list[Line]:
        """Goes on with this file. What an ended attempt left without its end is told."""
        self.close()
        rest: list[Line] = []
        if segment.attempt != self.attempt:
            rest = list(self.joiner.rest())
            self.joiner, self.rest, self.attempt = Joiner(), b"", segment.attempt
        older = [_place(one) for one in segments if one.rotated and _place(one) <= _place(segment)]
        self.floor = max([self.floor, (segment.attempt - 1, "~"), *older])
        self.file = file
        return rest

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None


def _place(segment: Segment) -> Place:
    return segment.attempt, segment.rotated or "~"


class _File:
    """An open file of a log."""

    __slots__ = ("_fd", "_unpacked", "inode")

    def __init__(self, fd: int, *, compressed: bool) -> None:
        self._fd = fd
        self.inode = os.fstat(fd).st_ino
        self._unpacked = gzip.GzipFile(fileobj=open(fd, "rb", closefd=False)) if compressed else None

    @staticmethod
    def open(segment: Segment) -> _File | None:
        fd = open_segment(segment.path)
        return None if fd is None else _File(fd, compressed=segment.compressed)

    def read(self) -> bytes:
        try:
            return self._unpacked.read1(CHUNK) if self._unpacked else os.read(self._fd, CHUNK)
        except (OSError, EOFError):
            return b""

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def offset(self) -> int:
        return os.lseek(self._fd, 0, os.SEEK_CUR)

    def to_end(self) -> None:
        os.lseek(self._fd, 0, os.SEEK_END)

    def close(self) -> None:
        os.close(self._fd)


class Follower:
    """All containers below `root` that `where` takes, now and later."""

    def __init__(self, root: str, where: Where, query: Query) -> None:
        self.root = root
        self.where = where
        self.query = query
        self._cursors: dict[str, Cursor] = {}
        self._watch = Watch()
        self._watched: set[str] = set()
        self._find(new=False)

    def ends(self) -> dict[int, int]:
        """How far files have been passed over or followed: inode → bytes. What is before is history."""
        files = [cursor.file for cursor in self._cursors.values() if cursor.file]
        return {file.inode: file.offset() for file in files}

    def _find(self, *, new: bool) -> None:
        """Containers that have come or gone. A new one is read from its beginning."""
        there = {one.directory: one for one in collect_containers(self.root)}
        for directory in self._cursors.keys() - there.keys():
            self._cursors.pop(directory).close()
        for directory, container in there.items():
            if directory in self._cursors or not self.where.takes(container):
                continue
            self._cursors[directory] = cursor = Cursor(container)
            if not new:
                cursor.start_at_end()
        self._observe([self.root, *{os.path.dirname(one) for one in there}, *self._cursors])

    def _observe(self, directories: list[str]) -> None:
        gone = self._watched - set(directories)
        self._watched -= gone
        for directory in directories:
            if directory not in self._watched:
                try:
                    self._watch.add(directory, WATCHED)
                except PyrunError:
                    continue  # it is gone, or there are no more watches: LOOK remains
                self._watched.add(directory)

    def wait(self) -> None:
        """Until there may be something new."""
        if select.select([self._watch.fileno()], [], [], LOOK)[0]:
            time.sleep(SHORTLY)
            while self._watch.read():
                pass

    def lines(self) -> Iterator[tuple[Container, Line]]:
        """What has come, a container after the other."""
        self._find(new=True)
        for cursor in self._cursors.values():
            for line in cursor.read():
                if self.query.takes(line):
                    yield cursor.container, line

    def close(self) -> None:
        for cursor in self._cursors.values():
            cursor.close()
        self._watch.close()
