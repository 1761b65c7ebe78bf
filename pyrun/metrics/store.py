"""The past of a node in one SQLite file: a blob for each series and hour, and for the hour that is not over a blob for
each scrape. A scrape is on the disk once `append` returns, so a power cut costs what was not read yet. An hour that is
sealed is rolled up as well (rollup.py): that lasts longer, and a long time of it is read fast.

One process writes, any number read (past.py). Hours go when they are too old, or when all together are too big."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from ..errors import PyrunError, Unavailable, reason
from .block import SECOND, decode_scrape, encode_block, encode_scrape
from .rollup import LEVELS, Point, decode_points, encode_points, roll
from .samples import COUNTERS, Series

FILE = "metrics.db"
VERSION = 2
HOUR = 3600 * SECOND
BUSY_S = 10.0
_SCHEMA = """
CREATE TABLE series (id INTEGER PRIMARY KEY, name TEXT NOT NULL, namespace TEXT NOT NULL, pod TEXT NOT NULL,
    uid TEXT NOT NULL, container TEXT NOT NULL, UNIQUE (namespace, pod, uid, container, name));
CREATE TABLE blocks (hour INTEGER NOT NULL, series INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (series, hour))
    WITHOUT ROWID;
CREATE INDEX blocks_by_hour ON blocks (hour);
CREATE TABLE scrapes (time INTEGER PRIMARY KEY, data BLOB NOT NULL);
"""
# Since version 2. start: the number of the blob's span.
_ROLLUPS = """
CREATE TABLE rollups (level INTEGER NOT NULL, start INTEGER NOT NULL, series INTEGER NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (series, level, start)) WITHOUT ROWID;
CREATE INDEX rollups_by_start ON rollups (level, start);
"""
FINE, COARSE = LEVELS
LONGEST_FINE_S = 30 * 86400


@dataclass(frozen=True, slots=True)
class Keep:
    """seconds, bytes: how old and how big it may become. The hour that is not over is always kept. rolled: how old
    points of an hour may become, those of 5 minutes 30 days at most; 0 makes none."""

    seconds: int = 7 * 86400
    bytes: int = 512 << 20
    rolled: int = 0


class Store:
    """The writer. directory: exists, and is held by nobody else (listen.only_one). Unavailable where the disk is full,
    or fails: it may be tried again; PyrunError where that is of no use."""

    def __init__(self, directory: str, keep: Keep) -> None:
        self._keep = keep
        path = f"{directory}/{FILE}"
        try:
            self._db = _open_or_begin(path)
            try:
                self._ids = {Series(*row[1:]): row[0] for row in self._db.execute(f"SELECT id, {COLUMNS} FROM series")}
                newest = self._db.execute("SELECT max(time) FROM scrapes").fetchone()[0]
            except BaseException:
                self._db.close()
                raise
        except (sqlite3.Error, OSError) as error:
            told = reason(error) if isinstance(error, OSError) else error
            raise Unavailable(f"{path}: {told}", hint="is the disk full, or read-only?") from None
        self._newest: int = newest or 0

    def append(self, time: int, samples: dict[Series, int]) -> None:
        """A scrape. time: hundredths of seconds since 1970; one that is not later than the one before is left out, but
        if the clock was set back by more than an hour. sqlite3.Error where it can't be written; then it is as if it had
        not been."""
        if self._newest - HOUR <= time <= self._newest:
            return
        fresh = [one for one in samples if one not in self._ids]
        made: dict[Series, int] = {}
        with self._db:
            # An hour that is over is sealed first, so that a scrape belongs to the hour of all that lie there.
            if self._newest // HOUR != time // HOUR:
                self._seal()
                self._forget(time)
            for one in fresh:
                made[one] = int(self._db.execute(_ADD, one).lastrowid or 0)
            ids = self._ids | made
            data = encode_scrape({ids[one]: value for one, value in samples.items()})
            self._db.execute("INSERT INTO scrapes VALUES (?, ?)", (time, data))
        self._ids |= made
        self._newest = time
        # The scrape is kept by now: what is tidied up after it may fail, and is done an hour later.
        with suppress(sqlite3.Error):
            self._drop_unused()

    def _seal(self) -> None:
        for hour, columns in _columns(self._db.execute("SELECT time, data FROM scrapes ORDER BY time")).items():
            rows = ((hour, id, encode_block(times, values)) for id, (times, values) in columns.items())
            self._db.executemany("INSERT OR REPLACE INTO blocks VALUES (?, ?, ?)", rows)
            if self._keep.rolled:
                names = {id: one.name for one, id in self._ids.items()}
                for id, (times, values) in columns.items():
                    for level in LEVELS:
                        self._roll(level, id, names[id].endswith(COUNTERS), times, values)
        self._db.execute("DELETE FROM scrapes")

    def _roll(self, level: int, id: int, counter: bool, times: list[int], values: list[int]) -> None:
        """An hour of a series lies in one span."""
        start = times[0] // LEVELS[level]
        spans = self._db.execute(
            "SELECT data FROM rollups WHERE series = ? AND level = ? AND start BETWEEN ? AND ? ORDER BY start",
            (id, level, start - 1, start),
        )
        known: list[Point] = []
        for (data,) in spans:
            with suppress(ValueError):  # one that is damaged is made anew
                known += decode_points(data)
        earlier = [one for one in known if one.time < times[0]]
        made = {one.time // level: one for one in known if one.time // LEVELS[level] == start}
        fresh = roll(level, times, values, counter=counter, before=earlier[-1] if earlier else None)
        made |= {one.time // level: one for one in fresh}
        data = encode_points([made[window] for window in sorted(made)])
        self._db.execute("INSERT OR REPLACE INTO rollups VALUES (?, ?, ?, ?)", (level, start, id, data))

    def _forget(self, now: int) -> None:
        oldest = (now - self._keep.seconds * SECOND) // HOUR
        self._db.execute("DELETE FROM blocks WHERE hour < ?", (oldest,))
        for level, seconds in ((FINE, min(self._keep.rolled, LONGEST_FINE_S)), (COARSE, self._keep.rolled)):
            start = (now - seconds * SECOND) // LEVELS[level]
            self._db.execute("DELETE FROM rollups WHERE level = ? AND start < ?", (level, start))
        while self._size() > self._keep.bytes and self._drop_oldest(now):
            pass

    def _drop_oldest(self, now: int) -> bool:
        """What is missed least: samples older than a day, points of 5 minutes, those of an hour, the rest."""
        day = now // HOUR - 24
        for table, key, where in (
            ("blocks", "hour", f"hour < {day}"),
            ("rollups", "start", f"level = {FINE}"),
            ("rollups", "start", f"level = {COARSE}"),
            ("blocks", "hour", "true"),
        ):
            (found,) = self._db.execute(f"SELECT min({key}) FROM {table} WHERE {where}").fetchone()
            if found is not None:
                self._db.execute(f"DELETE FROM {table} WHERE {where} AND {key} = ?", (found,))
                return True
        return False

    def _size(self) -> int:
        """Bytes in use."""
        size, pages, free = (
            self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "page_count", "freelist_count")
        )
        return int(size * (pages - free))

    def _drop_unused(self) -> None:
        """Once an hour is sealed: series of which nothing is left, and the pages that are free. Each is looked up by
        itself, for all blocks together may be half a gigabyte."""
        scrapes = self._db.execute("SELECT data FROM scrapes LIMIT 2").fetchall()
        if len(scrapes) != 1:
            return
        now = decode_scrape(scrapes[0][0])
        gone = [(one, id) for one, id in self._ids.items() if id not in now and not self._has_blocks(id)]
        with self._db:
            self._db.executemany("DELETE FROM series WHERE id = ?", ((id,) for _, id in gone))
        for one, _ in gone:
            del self._ids[one]
        self._db.execute("PRAGMA incremental_vacuum").fetchall()

    def _has_blocks(self, id: int) -> bool:
        return any(
            self._db.execute(f"SELECT 1 FROM {table} WHERE series = ? LIMIT 1", (id,)).fetchone() is not None
            for table in ("blocks", "rollups")
        )

    def close(self) -> None:
        self._db.close()


COLUMNS = "name, namespace, pod, uid, container"
_ADD = f"INSERT INTO series ({COLUMNS}) VALUES (?, ?, ?, ?, ?)"
Columns = dict[int, tuple[list[int], list[int]]]


def _columns(scrapes: Iterable[tuple[int, bytes]]) -> dict[int, Columns]:
    """hour → series → (times, values). A damaged scrape is passed over."""
    found: dict[int, Columns] = {}
    for time, data in scrapes:
        hour = found.setdefault(time // HOUR, {})
        try:
            values_by_id = decode_scrape(data)
        except ValueError:
            continue
        for id, value in values_by_id.items():
            times, values = hour.setdefault(id, ([], []))
            times.append(time)
            values.append(value)
    return found


def _open_or_begin(path: str) -> sqlite3.Connection:
    """A file that is damaged is put aside: the past is not worth that the present is not kept."""
    try:
        return _open(path)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise
        for suffix in ("", "-wal", "-shm"):
            if os.path.exists(path + suffix):
                os.rename(path + suffix, f"{path}.damaged{suffix}")
        return _open(path)


def _open(path: str) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=BUSY_S, check_same_thread=False)
    try:
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise PyrunError(f"{path} is of a newer pyrun", hint="give this one another --store")
        if version == 0:
            db.executescript(f"BEGIN; {_SCHEMA} {_ROLLUPS} PRAGMA user_version = {VERSION}; COMMIT;")
        if version == 1:  # hours that were sealed before are not rolled up
            db.executescript(f"BEGIN; {_ROLLUPS} PRAGMA user_version = {VERSION}; COMMIT;")
        if db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("damaged")
    except BaseException:
        db.close()
        raise
    return db
