"""The store's metadata: which images there are, of which layers, by which names, and who holds them.

One SQLite file in WAL mode, for every thread and process that uses the store. Documents lie in it, so that an image and
its config appear at once. What is to be on the disk when its transaction ends is written through (FULL); what may be
lost with the machine, such as a lease, is not. Use counts are never stored: they are queries, so nothing can disagree
with them.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pyrun.errors import PyrunError
from pyrun.image import room

VERSION = 5
PATIENCE_S = 30.0
SCHEMA = """
CREATE TABLE images (id TEXT PRIMARY KEY, manifest BLOB NOT NULL, config BLOB NOT NULL, pulled INTEGER NOT NULL);
CREATE TABLE layers (diff_id TEXT PRIMARY KEY, bytes INTEGER NOT NULL, inodes INTEGER NOT NULL, kind TEXT NOT NULL);
CREATE TABLE image_layers (image TEXT NOT NULL REFERENCES images ON DELETE CASCADE, position INTEGER NOT NULL,
    diff_id TEXT NOT NULL REFERENCES layers, PRIMARY KEY (image, position));
CREATE INDEX image_layers_by_layer ON image_layers (diff_id);
CREATE TABLE tags (name TEXT PRIMARY KEY, image TEXT NOT NULL REFERENCES images ON DELETE CASCADE);
CREATE TABLE digests (name TEXT NOT NULL, image TEXT NOT NULL REFERENCES images ON DELETE CASCADE,
    PRIMARY KEY (name, image));
CREATE TABLE holds (owner TEXT NOT NULL, image TEXT NOT NULL REFERENCES images, PRIMARY KEY (owner, image));
CREATE TABLE leases (ingest TEXT NOT NULL, diff_id TEXT NOT NULL REFERENCES layers, PRIMARY KEY (ingest, diff_id));
"""
# What each format has more than the one before it. implied: directories that a layer's tar has no entry for. used: when
# a container began or ceased to hold an image, in ns since 1970. content: of a layer, what layers.content_digest() said
# when it was unpacked. manifest_digest: of the image's manifest. damaged: layers that are not what they were.
# unwritten: layers that the disk may not have yet, which ingest brought them, and in which boot of the machine.
LATER = {
    2: """CREATE TABLE implied (diff_id TEXT NOT NULL REFERENCES layers ON DELETE CASCADE, path TEXT NOT NULL,
        PRIMARY KEY (diff_id, path)) WITHOUT ROWID""",
    3: "CREATE TABLE used (image TEXT PRIMARY KEY REFERENCES images ON DELETE CASCADE, at INTEGER NOT NULL)",
    4: """ALTER TABLE layers ADD COLUMN content TEXT;
        ALTER TABLE images ADD COLUMN manifest_digest TEXT;
        CREATE TABLE damaged (diff_id TEXT PRIMARY KEY REFERENCES layers ON DELETE CASCADE, why TEXT NOT NULL)""",
    5: """CREATE TABLE unwritten (diff_id TEXT PRIMARY KEY REFERENCES layers ON DELETE CASCADE, ingest TEXT NOT NULL,
        boot TEXT NOT NULL)""",
}
# Also in place of one that was damaged; images have it by its name.
ADD_LAYER = """INSERT INTO layers (diff_id, bytes, inodes, kind, content) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (diff_id) DO UPDATE SET bytes = excluded.bytes, inodes = excluded.inodes, kind = excluded.kind,
    content = excluded.content"""
ORPHANS = """SELECT diff_id FROM layers WHERE diff_id NOT IN (SELECT diff_id FROM image_layers)
    AND diff_id NOT IN (SELECT diff_id FROM leases)"""

# Layers that are images and that neither a container nor a pull needs.
IDLE = """SELECT diff_id FROM layers WHERE kind = 'erofs' AND diff_id NOT IN (SELECT diff_id FROM leases)
    AND diff_id NOT IN (SELECT diff_id FROM image_layers JOIN holds USING (image))"""


class Database:
    """The open file. Any thread may use it: one connection, one at a time, since each use takes microseconds."""

    def __init__(self, path: str) -> None:
        self._lock = threading.RLock()
        self._path = path
        try:
            self._open()
        except sqlite3.Error as error:  # perhaps of a disk that is full, which it does not say at this point
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY or not room.give_up(path):
                raise self._told(error)
            try:
                self._open()
            except sqlite3.Error as again:
                raise self._told(again)
        room.keep(path)

    def _open(self) -> None:
        self._connection = sqlite3.connect(
            self._path, timeout=PATIENCE_S, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        try:
            self._set_up()
        except BaseException:
            self._connection.close()
            raise

    def _set_up(self) -> None:
        run = self._connection.execute
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA foreign_keys = ON")
        run("PRAGMA synchronous = NORMAL")
        with self.transaction(durable=True):
            found = run("PRAGMA user_version").fetchone()[0]
            if found > VERSION:
                raise PyrunError(f"{self._path}: it is of a newer pyrun (format {found})", hint="use that version")
            if found == VERSION:
                return
            for statement in SCHEMA.split(";") if found == 0 else ():
                run(statement)
            for version in range(max(found, 1) + 1, VERSION + 1):
                for statement in LATER[version].split(";"):
                    run(statement)
            run(f"PRAGMA user_version = {VERSION}")

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """All of the block or nothing. durable: on the disk when it ends."""
        with self._lock:
            try:
                if durable:
                    self._connection.execute("PRAGMA synchronous = FULL")
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                except BaseException:
                    self._connection.execute("ROLLBACK")
                    raise
                self.committing()
            except sqlite3.Error as error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise self._told(error)
            finally:
                if durable:
                    self._connection.execute("PRAGMA synchronous = NORMAL")

    def write_out(self) -> None:
        """Ends when the disk has all that was committed before."""
        with self.transaction(durable=True) as db:
            (found,) = db.execute("PRAGMA user_version").fetchone()
            db.execute(f"PRAGMA user_version = {found}")  # a page is written: a commit of nothing waits for nothing

    def committing(self) -> None:
        """The moment of a transaction; tests kill before it."""
        self._connection.execute("COMMIT")

    def rows(self, query: str, *values: object) -> list[tuple[object, ...]]:
        with self._lock:
            try:
                return self._connection.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise self._told(error)

    def words(self, query: str, *values: object) -> list[str]:
        """The first column of a query, as strings."""
        return [str(row[0]) for row in self.rows(query, *values)]

    def _told(self, error: sqlite3.Error) -> PyrunError:
        full = isinstance(error, sqlite3.OperationalError) and "full" in str(error)
        return PyrunError(f"{self._path}: {error}", hint="the disk is full" if full else None)
