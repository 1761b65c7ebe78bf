"""Old samples made few: a point for each 5 minutes or hour. Pure.

A point has the time and value of the last sample in its window, and what that alone does not tell: of a counter by how
much it has grown since the point before, restarts left out; of others the largest value. Points of a day (of 5 minutes)
or of 30 days (of an hour) are one blob: three columns as in block.py. Times are hundredths of seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .block import SECOND, decode_columns, encode_columns

# How long a window is → how much of it is one blob.
LEVELS = {300 * SECOND: 86400 * SECOND, 3600 * SECOND: 30 * 86400 * SECOND}


class Point(NamedTuple):
    """more: growth or maximum."""

    time: int
    last: int
    more: int


def roll(
    level: int, times: Sequence[int], values: Sequence[int], *, counter: bool, before: Point | None
) -> list[Point]:
    """A point for each window in which there are samples. before: the point before them, if there is one."""
    found: list[Point] = []
    last = before.last if before else None
    more: int | None = None
    for at, (time, value) in enumerate(zip(times, values, strict=True)):
        if counter:
            grown = 0 if last is None else value - last if value >= last else value
            more = (more or 0) + grown
        else:
            more = value if more is None else max(more, value)
        last = value
        if at + 1 == len(times) or times[at + 1] // level != time // level:
            found.append(Point(time, value, more))
            more = None
    return found


def unroll(points: Sequence[Point], *, counter: bool) -> tuple[list[int], list[int]]:
    """(times, values), as samples that were taken seldom. A counter is told without its restarts, such that it ends at
    its own last value, and may begin below 0."""
    times = [one.time for one in points]
    if not counter:
        return times, [one.more for one in points]
    values: list[int] = []
    value = points[-1].last if points else 0
    for one in reversed(points):
        values.append(value)
        value -= one.more
    return times, values[::-1]


def encode_points(points: Sequence[Point]) -> bytes:
    return encode_columns([list(column) for column in zip(*points, strict=True)])


def decode_points(data: bytes) -> list[Point]:
    """ValueError where it is none."""
    return [Point(*row) for row in zip(*decode_columns(data, 3), strict=True)]
