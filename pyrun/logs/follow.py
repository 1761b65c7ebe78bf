"""Follows logs as they are written: over rotations, restarts of containers, and pods that come and go.

A file is held by descriptor and read to its end even when its name means another file by now. The next file of a
container is taken when something is in it, since its writer goes on in the old one until then. inotify tells when to
look, but nothing relies upon it: there is a look every LOOK seconds anyway.
"""

from __future__ import annotations

import gzip
import os
import time
import zlib
from dataclasses import dataclass, field

from ..inotify import CREATE, DELETE, MODIFY, MOVED_TO
from .files import End
from .line import Joiner, Line
from .tree import BEFORE_ALL, Container, collect_containers, collect_segments, open_segment
from .watched import Watched

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .query import Query, Where
    from .tree import Place, Segment

LOOK = 1.0
CHUNK = 1 << 16
# Of the beginning of a file, by which it is known again: more than the time of its first line.
HEAD = 64
# Reads of one container before the others have their turn.
BURST = 64
# Seconds. The log of a removed pod is nowhere until it is sealed; the cursor knows the block as what it has read.
GONE_KEPT = 300.0
WATCHED = CREATE | DELETE | MODIFY | MOVED_TO
NOTHING = End(BEFORE_ALL, (0, 0), 0)


@dataclass(frozen=True, slots=True)
class Position:
    """How far a container was read, in a form that outlives the process and the file's name: the file is the first one
    after the place `before` that begins with `head`, a line with its time."""

    before: Place
    head: bytes
    offset: int


START = Position(BEFORE_ALL, b"", 0)


@dataclass(slots=True)
class Cursor:
    """Where a container is read. file: what is read, None before the first. floor: (attempt, stamp) of the newest
    rotated file that has been read, or was old when we began. safe: up to where all lines have been told. at_end: the
    last read found no more."""

    container: Container
    file: _File | None = None
    floor: Place = (-1, "")
    attempt: int = -1
    end: End = NOTHING
    rest: bytes = b""
    joiner: Joiner = field(default_factory=Joiner)
    before: Place = BEFORE_ALL
    head: bytes = b""
    done: int = 0
    safe: Position = START
    at_end: bool = False
    _line: int = -1  # where in its file the line begins that was told last; -1: not after `safe`

    def start_at_end(self) -> None:
        """Passes over what is there."""
        segments = collect_segments(self.container)
        if segments and (file := _File.open(self.container, segments[-1])) is not None:
            file.to_end()
            before = segments[-2].place if len(segments) > 1 else BEFORE_ALL
            self.end = End(before, file.original, file.size())
            self._take(segments[-1], file, segments)

    def start_at(self, position: Position) -> bool:
        """Goes on where an earlier cursor was. False: that file is not there any more; then from the one after it."""
        self.floor = self.before = position.before
        self.safe = position
        if not position.head:
            return True
        segments = collect_segments(self.container)
        for segment in segments:
            file = _File.open(self.container, segment) if segment.place > position.before else None
            if file is None:
                continue
            if file.peek().startswith(position.head):
                self._take(segment, file, segments)
                self.head, self.done = position.head, file.skip(position.offset)
                return True
            file.close()
        return False

    def read(self, burst: int = BURST) -> Iterator[Line]:
        """What has come since; at most so many pieces of the file."""
        self.at_end = False
        for _ in range(burst):
            data = self.file.read() if self.file else b""
            if not data:
                found = self._next()
                if found is None:
                    self.at_end = True
                    return
                # The old file's writer is done once there is something in the next one.
                data = self.file.read() if self.file else b""
                if data:
                    found[1].close()
                else:
                    yield from self._take(*found)
                    continue
            place = self.done - len(self.rest)
            self.done += len(data)
            self.head = (self.head + data)[:HEAD] if len(self.head) < HEAD else self.head
            *raws, self.rest = (self.rest + data).split(b"\n")
            for raw in raws:
                if self.joiner.idle:
                    self._line = place
                place += len(raw) + 1
                if (told := self.joiner.add(raw)) is not None:
                    yield told
            if self.joiner.idle:
                whole = self.done - len(self.rest)
                self.safe = Position(self.before, self.head[:whole], whole)

    def begin(self) -> Position:
        """Where the line begins that was told last, or something before it."""
        return self.safe if self._line < 0 else Position(self.before, self.head[: self._line], self._line)

    def _next(self) -> tuple[Segment, _File, list[Segment]] | None:
        """The file that follows the one that is read, if something is in it."""
        segments = collect_segments(self.container)
        for segment in segments:
            if segment.place <= self.floor:
                continue
            file = _File.open(self.container, segment)
            if file is None:
                continue
            if self.file is not None and self.file.identity in (file.identity, file.original):
                self.floor = max(self.floor, segment.place) if segment.rotated else self.floor
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
        older = [one.place for one in segments if one.rotated and one.place < segment.place]
        self.before = max([self.floor, (segment.attempt - 1, "~"), *older])
        self.floor = max(self.before, segment.place) if segment.rotated else self.before
        self.head, self.done, self._line = b"", 0, -1  # what is held begins in the file before
        self.file = file
        return rest

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None


class _File:
    """An open file of a log. identity: its device and inode; original: those of the file that it was before it was
    sealed. A file that is held keeps its inode, so one with the same is the same."""

    __slots__ = ("_ahead", "_fd", "_read", "_size", "identity", "original")

    def __init__(self, fd: int, segment: Segment) -> None:
        self._fd = fd
        about = os.fstat(fd)
        self.identity = self.original = (about.st_dev, about.st_ino)
        self._read: Callable[[int], bytes] = lambda size: os.read(fd, size)
        self._size: int | None = None
        self._ahead = b""
        if segment.compressed:
            self._read = gzip.GzipFile(fileobj=open(fd, "rb", closefd=False)).read1
        elif segment.sealed:
            from .block import sealed_lines

            self.original, self._size, self._read = sealed_lines(fd)

    @staticmethod
    def open(container: Container, segment: Segment) -> _File | None:
        found = open_segment(container, segment)
        return None if found is None else _File(*found)

    def peek(self) -> bytes:
        """What is next, and stays so."""
        self._ahead = self.read()
        return self._ahead

    def skip(self, size: int) -> int:
        """Passes over so many bytes, or what there is; how many that were."""
        left = size
        while left and (data := self.read()):
            self._ahead, left = data[left:], left - min(left, len(data))
        return size - left

    def read(self) -> bytes:
        if self._ahead:
            data, self._ahead = self._ahead, b""
            return data
        try:
            return self._read(CHUNK)
        except (OSError, EOFError, ValueError, zlib.error):
            return b""  # damaged: what came before it was told

    def size(self) -> int:
        return os.fstat(self._fd).st_size if self._size is None else self._size

    def offset(self) -> int:
        return os.lseek(self._fd, 0, os.SEEK_CUR)

    def to_end(self) -> None:
        """Passes over what is there; only of one that may still be written to there will be more."""
        os.lseek(self._fd, 0, os.SEEK_END)
        if self._size is not None:
            self._read = lambda size: b""

    def close(self) -> None:
        os.close(self._fd)


class Follower:
    """All containers below `root` that `where` takes, now and later."""

    def __init__(self, root: str, where: Where, query: Query, store: str = "") -> None:
        self.root = root
        self.store = store
        self.where = where
        self.query = query
        self._cursors: dict[str, Cursor] = {}
        # Those of which nothing is there, and since when.
        self._gone: dict[str, float] = {}
        self._watched = Watched(WATCHED)
        self._find(new=False)

    def ends(self) -> dict[str, End]:
        """Where history ends: what was there when we began."""
        return {directory: cursor.end for directory, cursor in self._cursors.items()}

    def offsets(self) -> dict[tuple[int, int], int]:
        """How far the files are read that are held: device and inode → bytes."""
        files = [cursor.file for cursor in self._cursors.values() if cursor.file]
        return {file.identity: file.offset() for file in files}

    def _find(self, *, new: bool) -> None:
        """Containers that have come or gone. A new one is read from its beginning; one that is gone is kept for a while
        where it may come back as a block."""
        there = {one.directory: one for one in collect_containers(self.root, self.store)}
        now = time.monotonic()
        self._gone = {one: self._gone.get(one, now) for one in self._cursors.keys() - there.keys()}
        for directory, since in self._gone.items():
            if now - since >= (GONE_KEPT if self.store else 0):
                self.ended(cursor := self._cursors.pop(directory))
                cursor.close()
        for directory, container in there.items():
            if directory in self._cursors or not self.where.takes(container):
                continue
            self._cursors[directory] = self.begin(container, new=new)
        self._watched.set([self.root, *{os.path.dirname(one) for one in there}, *(self._cursors.keys() & there.keys())])

    def begin(self, container: Container, *, new: bool) -> Cursor:
        """Where a container is read from that was there when we began, or is new."""
        cursor = Cursor(container)
        if not new:
            cursor.start_at_end()
        return cursor

    def ended(self, cursor: Cursor) -> None:
        """Nothing is left of a container."""

    def wait(self) -> None:
        """Until there may be something new."""
        self._watched.wait(LOOK)

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
        self._watched.close()
