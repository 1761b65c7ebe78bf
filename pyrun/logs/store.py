"""What `pyrun collect` keeps: sealed files below blocks/, and in one SQLite file what was dropped, by pod.

The names of the files are the index: nothing has to agree with anything else after a kill. Files go when they are too
old, or the oldest where all are too big; how many lines that were is known before they go.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import suppress
from dataclasses import dataclass

from ..errors import PyrunError
from .block import Block
from .line import SECOND
from .tree import BLOCKS, Container, collect_containers, collect_segments, open_log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .block import About

DATABASE = "collect.db"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS dropped (why TEXT NOT NULL, namespace TEXT NOT NULL, pod TEXT NOT NULL,
    container TEXT NOT NULL, lines INTEGER NOT NULL, PRIMARY KEY (why, namespace, pod, container)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dropping (path TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS shipped (target TEXT PRIMARY KEY, lines INTEGER NOT NULL, dropped INTEGER NOT NULL,
    lost_files INTEGER NOT NULL, failures INTEGER NOT NULL, last_error TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cursors (target TEXT NOT NULL, namespace TEXT NOT NULL, pod TEXT NOT NULL,
    uid TEXT NOT NULL, container TEXT NOT NULL, attempt INTEGER NOT NULL, stamp TEXT NOT NULL, head BLOB NOT NULL,
    offset INTEGER NOT NULL, PRIMARY KEY (target, namespace, pod, uid, container)) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Keep:
    """seconds, bytes: how old sealed files, and how big all of them, may become."""

    seconds: float = 7 * 86400
    bytes: int = 2 << 30


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed file. size: its own in bytes. last: the time of its last line, or of the sealing; lines: 0 where a
    damaged one does not tell."""

    path: str
    container: Container
    size: int
    last: int
    lines: int


def plan_drops(there: Iterable[Sealed], keep: Keep, now: int) -> list[tuple[Sealed, str]]:
    """Which go, and why: "age" or "bytes". now: nanoseconds since 1970. Pure."""
    files = sorted(there, key=lambda one: (one.last, one.path))
    total = sum(one.size for one in files)
    oldest = now - int(keep.seconds * SECOND)
    gone: list[tuple[Sealed, str]] = []
    for one in files:
        if one.last >= oldest and total <= keep.bytes:
            break
        gone.append((one, "age" if one.last < oldest else "bytes"))
        total -= one.size
    return gone


class LogStore:
    """directory: exists, and is held by nobody else (listen.only_one)."""

    def __init__(self, directory: str, keep: Keep) -> None:
        self.directory = directory
        self._keep = keep
        self._known: dict[str, Sealed] = {}
        # What could not be written down yet, for the disk is full: sums by statement and key.
        self._late: dict[tuple[str, tuple[str, ...]], int] = {}
        os.makedirs(os.path.join(directory, BLOCKS), 0o700, exist_ok=True)
        self._db = _open(os.path.join(directory, DATABASE))
        self._finish()

    def add(self, about: About) -> None:
        """Counts what was sealed."""
        counted = (("sealed_files", 1), ("sealed_lines", about.lines), ("sealed_bytes", about.size))
        self._count([(_COUNT, (name,), number) for name, number in counted])

    def count_dropped(self, why: str, container: Container, lines: int) -> None:
        """What is lost without having been here."""
        self._count([(_DROP, (why, container.namespace, container.pod, container.name), lines)])

    def _count(self, rows: list[tuple[str, tuple[str, ...], int]]) -> None:
        """Where the disk is full they are written with the next ones, unless we are killed before."""
        for statement, key, number in rows:
            self._late[statement, key] = self._late.get((statement, key), 0) + number
        with suppress(sqlite3.Error):
            with self._db:
                for (statement, key), number in self._late.items():
                    self._db.execute(statement, (*key, number))
            self._late.clear()

    def drop_old(self, now: int | None = None) -> int:
        """Removes what is too old or too much; how many files that were."""
        gone = plan_drops(self._sealed(), self._keep, time.time_ns() if now is None else now)
        for one, why in gone:
            self._drop(one, why)
        return len(gone)

    def _drop(self, one: Sealed, why: str) -> None:
        c = one.container
        try:
            with self._db:
                self._db.execute(_DROP, (why, c.namespace, c.pod, c.name, one.lines))
                self._db.execute("INSERT OR IGNORE INTO dropping VALUES (?)", (one.path,))
            self._finish()
        except sqlite3.Error:  # the disk is full: it takes the room of what goes to write that down
            if not os.path.lexists(one.path):
                raise
            os.unlink(one.path)
            self.count_dropped(why, c, one.lines)
        self._known.pop(one.path, None)
        for directory in (os.path.dirname(one.path), os.path.dirname(os.path.dirname(one.path))):
            with suppress(OSError):
                os.rmdir(directory)

    def _finish(self) -> None:
        """What was counted goes, also after a kill in between: it is not counted twice."""
        for (path,) in self._db.execute("SELECT path FROM dropping").fetchall():
            with suppress(FileNotFoundError):
                os.unlink(path)
        with self._db:
            self._db.execute("DELETE FROM dropping")

    def _sealed(self) -> list[Sealed]:
        there: dict[str, Sealed] = {}
        for container in collect_containers("/nonexistent", self.directory):
            for segment in collect_segments(container):
                with suppress(OSError):
                    there[segment.path] = self._known.get(segment.path) or _look(segment.path, container)
        self._known = there
        return list(there.values())

    def close(self) -> None:
        self._db.close()


_COUNT = "INSERT INTO counters VALUES (?, ?) ON CONFLICT DO UPDATE SET value = value + excluded.value"
_DROP = "INSERT INTO dropped VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET lines = lines + excluded.lines"


def _look(path: str, container: Container) -> Sealed:
    about = os.stat(path)
    fd = open_log(path)
    if fd is not None:
        try:
            block = Block(fd)
            return Sealed(path, container, about.st_size, min(block.about.last, about.st_mtime_ns), block.about.lines)
        except ValueError:
            pass  # damaged: it goes by the time at which it was made
        finally:
            os.close(fd)
    return Sealed(path, container, about.st_size, about.st_mtime_ns, 0)


def _open(path: str) -> sqlite3.Connection:
    try:
        db = sqlite3.connect(path, timeout=10.0, check_same_thread=False)
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(_SCHEMA)
        return db
    except sqlite3.Error as error:
        raise PyrunError(
            f"{path}: {error}", hint="is the disk full, or read-only? If it is damaged, move it away"
        ) from None


def read_status(directory: str) -> dict[str, object]:
    """{"counters": {name: n}, "dropped": [{why, namespace, pod, container, lines}], "shipped": [{target, lines,
    dropped, lost_files, failures, last_error}]}. May be asked while a collector runs."""
    path = os.path.join(directory, DATABASE)
    try:
        db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10.0)
        try:
            db.row_factory = sqlite3.Row
            counters = {row["name"]: row["value"] for row in db.execute("SELECT * FROM counters")}
            dropped = [dict(row) for row in db.execute("SELECT * FROM dropped ORDER BY namespace, pod, container, why")]
            shipped = [dict(row) for row in db.execute("SELECT * FROM shipped ORDER BY target")]
        finally:
            db.close()
    except sqlite3.Error as error:
        raise PyrunError(f"{path}: {error}", hint="pyrun collect makes it; --store DIR names its directory") from None
    return {"counters": counters, "dropped": dropped, "shipped": shipped}
