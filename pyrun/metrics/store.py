"""The past of a node in one SQLite file: a blob for each series and hour, and for the hour that is not over a blob for
each scrape. A scrape is on the disk once `append` returns, so a power cut costs what was not read yet.

One process writes, any number read. Hours go when they are too old, or when all together are too big."""

from __future__ import annotations

import os
import sqlite3
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass

from ..errors import NotFound, PyrunError
from .block import SECOND, decode_block, decode_scrape, encode_block, encode_scrape
from .samples import Series

FILE = "metrics.db"
VERSION = 1
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


@dataclass(frozen=True, slots=True)
class Keep:
    """seconds, bytes: how old and how big it may become. The hour that is not over is always kept."""

    seconds: int = 7 * 86400
    bytes: int = 512 << 20


class Store:
    """The writer. directory: exists, and is held by nobody else (listen.only_one)."""

    def __init__(self, directory: str, keep: Keep) -> None:
        self._keep = keep
        self._db = _open_or_begin(f"{directory}/{FILE}")
        self._ids = {Series(*row[1:]): row[0] for row in self._db.execute(f"SELECT id, {_COLUMNS} FROM series")}
        newest = self._db.execute("SELECT max(time) FROM scrapes").fetchone()[0]
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
        self._db.execute("DELETE FROM scrapes")

    def _forget(self, now: int) -> None:
        oldest = (now - self._keep.seconds * SECOND) // HOUR
        self._db.execute("DELETE FROM blocks WHERE hour < ?", (oldest,))
        while self._size() > self._keep.bytes:
            found = self._db.execute("SELECT min(hour) FROM blocks").fetchone()[0]
            if found is None:
                return
            self._db.execute("DELETE FROM blocks WHERE hour = ?", (found,))

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
        return self._db.execute("SELECT 1 FROM blocks WHERE series = ? LIMIT 1", (id,)).fetchone() is not None

    def close(self) -> None:
        self._db.close()


_COLUMNS = "name, namespace, pod, uid, container"
_OF = "namespace = ? AND pod = ? AND uid = ?"
_ADD = f"INSERT INTO series ({_COLUMNS}) VALUES (?, ?, ?, ?, ?)"
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
            raise PyrunError(f"{path}: {error}", hint="is the disk full, or read-only?") from None
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
            db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
        if db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("damaged")
    except BaseException:
        db.close()
        raise
    return db


def read_history(
    directory: str, of: tuple[str, str, str], since: int, until: int
) -> dict[Series, tuple[list[int], list[int]]]:
    """(times, values) of each series of a pod (namespace, name, uid), or of the node (all ""). May be asked while
    another process writes. NotFound where there is no store."""
    return _read_file(directory, f"WHERE {_OF}", of, since, until)


def read_all(directory: str, since: int, until: int) -> dict[Series, tuple[list[int], list[int]]]:
    """The same of all series, of just this time."""
    found = {}
    for one, (times, values) in _read_file(directory, "", (), since, until).items():
        low, high = bisect_left(times, since), bisect_right(times, until)
        if low < high:
            found[one] = (times[low:high], values[low:high])
    return found


def _read_file(
    directory: str, where: str, of: tuple[str, ...], since: int, until: int
) -> dict[Series, tuple[list[int], list[int]]]:
    path = f"{directory}/{FILE}"
    if not os.path.exists(path):
        raise NotFound(f"{path} is not there", hint="pyrun metrics --store DIR keeps what it reads")
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=BUSY_S)) as db:
            db.execute("BEGIN")  # all that follows is of one moment
            return _read(db, where, of, since, until)
    except (sqlite3.Error, ValueError) as error:
        raise PyrunError(f"{path}: {error}", hint="the next start of pyrun metrics looks into it") from None


def _read(
    db: sqlite3.Connection, where: str, of: tuple[str, ...], since: int, until: int
) -> dict[Series, tuple[list[int], list[int]]]:
    rows = db.execute(f"SELECT id, {_COLUMNS} FROM series {where}", of)
    names = {row[0]: Series(*row[1:]) for row in rows}
    found: dict[Series, tuple[list[int], list[int]]] = {one: ([], []) for one in names.values()}
    hours = (since // HOUR, until // HOUR)
    for id, one in names.items():
        blocks = db.execute(
            "SELECT data FROM blocks WHERE series = ? AND hour BETWEEN ? AND ? ORDER BY hour", (id, *hours)
        )
        for (data,) in blocks:
            times, values = decode_block(data)
            found[one][0].extend(times)
            found[one][1].extend(values)
    scrapes = db.execute("SELECT time, data FROM scrapes WHERE time BETWEEN ? AND ? ORDER BY time", (since, until))
    for time, data in scrapes:
        values_by_id = decode_scrape(data)
        for id in names.keys() & values_by_id.keys():
            found[names[id]][0].append(time)
            found[names[id]][1].append(values_by_id[id])
    return {one: columns for one, columns in found.items() if columns[0]}
