"""The last hours of a pod or of the node, as JSON for pages and people."""

from __future__ import annotations

import time
from typing import Any

from ..errors import InvalidArgument
from .block import SECOND
from .samples import plan_points
from .store import read_history

LONGEST_S = 31 * 86400
MOST_POINTS = 2000


def collect_history(directory: str, of: tuple[str, str, str], seconds: int, step: int) -> dict[str, Any]:
    """of: a pod's namespace, name and uid, or three times "" for the node. Points are [seconds since 1970, value]; of
    counters the value is a rate a second. InvalidArgument for what is too much, NotFound without a store."""
    if not 0 < seconds <= LONGEST_S or not 0 < step <= seconds or seconds // step > MOST_POINTS:
        text = f"{seconds} s by {step} s: at most {LONGEST_S} s and {MOST_POINTS} points can be had"
        raise InvalidArgument(text, hint="take a longer step")
    until = int(time.time() * SECOND)
    since = until - seconds * SECOND
    # A rate needs what was read before.
    found = read_history(directory, of, since - max(step, 60) * SECOND, until)
    return {
        "since": since / SECOND,
        "until": until / SECOND,
        "series": [
            {
                "name": series.name,
                "container": series.container,
                "points": [
                    [at / SECOND, round(value, 6)]
                    for at, value in plan_points(series.name, times, values, since, until, step * SECOND)
                ],
            }
            for series, (times, values) in sorted(found.items())
        ],
    }
