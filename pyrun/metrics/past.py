"""Reads what a Store keeps, while another process writes: samples as they were; for a long time, or where samples are
too old to be there, what they were rolled up to."""

from __future__ import annotations

import os
import sqlite3
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TypeVar

from ..errors import NotFound, PyrunError
from .block import decode_block, decode_scrape
from .rollup import LEVELS, decode_points, unroll
from .samples import COUNTERS, Series
from .store import BUSY_S, COLUMNS, FILE, HOUR

T = TypeVar("T")
Samples = tuple[list[int], list[int]]
Found = dict[Series, Samples]
_ROLLED = 2  # the first version that has roll-ups


def read_history(directory: str, of: tuple[str, str, str], since: int, until: int, step: int = 0) -> Found:
    """(times, values) of each series of a pod (namespace, name, uid), or of the node (all ""), by steps of so long at
    least where there are roll-ups. NotFound where there is no store."""
    where = "WHERE namespace = ? AND pod = ? AND uid = ?"
    return _ask(directory, lambda db: _read(db, where, of, since, until, step))


def read_pods(directory: str, names: Sequence[str], uids: Sequence[str], since: int, until: int, step: int) -> Found:
    """The same of these metrics of these pods, of what is not sealed yet one sample a step: a scrape has all pods."""
    where = f"WHERE container = '' AND name IN ({_marks(names)}) AND uid IN ({_marks(uids)})"
    return _ask(directory, lambda db: _read(db, where, (*names, *uids), since, until, step, every=step))


def _marks(words: Sequence[str]) -> str:
    return ", ".join("?" * len(words))


def read_metric(directory: str, name: str, since: int, until: int, step: int = 0) -> Found:
    """The same of each series of this name."""
    return _ask(directory, lambda db: _read(db, "WHERE name = ?", (name,), since, until, step))


def read_all(directory: str, since: int, until: int) -> Found:
    """The same of all series, of just this time, and of samples alone."""
    found = {}
    for one, (times, values) in _ask(directory, lambda db: _read(db, "", (), since, until, None)).items():
        low, high = bisect_left(times, since), bisect_right(times, until)
        if low < high:
            found[one] = (times[low:high], values[low:high])
    return found


def read_names(directory: str) -> list[Series]:
    """What there is anything of."""
    return _ask(directory, lambda db: [Series(*row) for row in db.execute(f"SELECT {COLUMNS} FROM series")])


def _ask(directory: str, read: Callable[[sqlite3.Connection], T]) -> T:
    path = f"{directory}/{FILE}"
    if not os.path.exists(path):
        raise NotFound(f"{path} is not there", hint="pyrun metrics --store DIR keeps what it reads")
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=BUSY_S)) as db:
            db.execute("BEGIN")  # all that follows is of one moment
            return read(db)
    except (sqlite3.Error, ValueError) as error:
        raise PyrunError(f"{path}: {error}", hint="the next start of pyrun metrics looks into it") from None


def _read(
    db: sqlite3.Connection,
    where: str,
    of: tuple[str, ...],
    since: int,
    until: int,
    step: int | None,
    *,
    every: int = 1,
) -> Found:
    rows = db.execute(f"SELECT id, {COLUMNS} FROM series {where}", of)
    names = {row[0]: Series(*row[1:]) for row in rows}
    levels = list(LEVELS) if step is not None and _version(db) >= _ROLLED else []
    found = {id: _sealed(db, id, one, since, until, levels, step or 0) for id, one in names.items()}
    wanted = "SELECT max(time) FROM scrapes WHERE time BETWEEN ? AND ? GROUP BY time / ?"
    ask = f"SELECT time, data FROM scrapes WHERE time IN ({wanted}) ORDER BY time"
    scrapes = db.execute(ask, (since, until, every))
    for time, data in scrapes:
        values_by_id = decode_scrape(data)
        for id in found.keys() & values_by_id.keys():
            found[id][0].append(time)
            found[id][1].append(values_by_id[id])
    return {names[id]: columns for id, columns in found.items() if columns[0]}


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _sealed(
    db: sqlite3.Connection, id: int, one: Series, since: int, until: int, levels: list[int], step: int
) -> Samples:
    """From the coarsest that the step allows; what is older than that has, from the next."""
    fitting = [level for level in levels if level <= step]
    tiers = [fitting[-1], *(level for level in levels if level > step)] if fitting else [0, *levels]
    times: list[int] = []
    values: list[int] = []
    for level in tiers:
        end = times[0] if times else until + 1
        if level and end - since <= level:
            break  # nothing of it can be missing
        more = _rolled(db, id, one, level, since, end) if level else _samples(db, id, since, until)
        times, values = more[0] + times, more[1] + values
    if not fitting:
        return times, values
    # Hours that were sealed before there were roll-ups, or while none were made.
    first = times[0] if times else until + 1
    before = _samples(db, id, since, first - 1)
    low = bisect_left(before[0], first)
    after = _samples(db, id, (times[-1] // HOUR + 1) * HOUR, until) if times else ([], [])
    return before[0][:low] + times + after[0], before[1][:low] + values + after[1]


def _samples(db: sqlite3.Connection, id: int, since: int, until: int) -> Samples:
    blocks = db.execute(
        "SELECT data FROM blocks WHERE series = ? AND hour BETWEEN ? AND ? ORDER BY hour",
        (id, since // HOUR, until // HOUR),
    )
    times: list[int] = []
    values: list[int] = []
    for (data,) in blocks:
        more = decode_block(data)
        times += more[0]
        values += more[1]
    return times, values


def _rolled(db: sqlite3.Connection, id: int, one: Series, level: int, since: int, end: int) -> Samples:
    """Before `end`."""
    span = LEVELS[level]
    blobs = db.execute(
        "SELECT data FROM rollups WHERE series = ? AND level = ? AND start BETWEEN ? AND ? ORDER BY start",
        (id, level, since // span, end // span),
    )
    points = [point for (data,) in blobs for point in decode_points(data) if since <= point.time < end]
    return unroll(points, counter=one.name.endswith(COUNTERS))
