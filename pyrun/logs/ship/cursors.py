"""What a shipper remembers, in the store's SQLite file: how far it is in each container, and what it did. A position is
written after the lines before it were taken, so that a kill sends some of them twice and leaves none out."""

from __future__ import annotations

import sqlite3

from ..follow import Position

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..tree import Container

Key = tuple[str, str, str, str]


def key_of(container: Container) -> Key:
    return container.namespace, container.pod, container.uid, container.name


class Cursors:
    """path: the SQLite file, which the store has made (store.py). target: whose cursors these are."""

    def __init__(self, path: str, target: str) -> None:
        self._target = target
        self._db = sqlite3.connect(path, timeout=30.0, check_same_thread=False)
        with self._db:
            self._db.execute("INSERT OR IGNORE INTO shipped VALUES (?, 0, 0, 0, 0, '')", (target,))

    def positions(self) -> dict[Key, Position]:
        rows = self._db.execute(f"SELECT {_COLUMNS} FROM cursors WHERE target = ?", (self._target,))
        return {row[:4]: Position((row[4], row[5]), row[6], row[7]) for row in rows}

    def commit(self, positions: Mapping[Key, Position], lines: int, dropped: int) -> None:
        rows = [(self._target, *key, *one.before, one.head, one.offset) for key, one in positions.items()]
        with self._db:
            self._db.executemany("INSERT OR REPLACE INTO cursors VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
            self._db.execute(
                "UPDATE shipped SET lines = lines + ?, dropped = dropped + ? WHERE target = ?",
                (lines, dropped, self._target),
            )

    def forget(self, key: Key) -> None:
        """Of a container of which nothing is left."""
        with self._db:
            self._db.execute(
                "DELETE FROM cursors WHERE (target, namespace, pod, uid, container) = (?, ?, ?, ?, ?)",
                (self._target, *key),
            )

    def count(self, *, lost_files: int = 0, error: str = "") -> None:
        """What went wrong."""
        with self._db:
            self._db.execute(
                "UPDATE shipped SET lost_files = lost_files + ?, failures = failures + ?,"
                " last_error = coalesce(nullif(?, ''), last_error) WHERE target = ?",
                (lost_files, bool(error), error, self._target),
            )

    def close(self) -> None:
        self._db.close()


_COLUMNS = "namespace, pod, uid, container, attempt, stamp, head, offset"
