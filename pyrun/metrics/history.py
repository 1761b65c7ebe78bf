"""The last hours of a pod or of the node, as JSON for pages and people."""

from __future__ import annotations

import time
from typing import Any

from ..errors import InvalidArgument
from .block import SECOND
from .past import read_history, read_metric, read_names, read_pods
from .samples import Series, plan_points

LONGEST_S = 400 * 86400
MOST_POINTS = 2000
MOST_SERIES = 50
MOST_PODS = 100
SPARKS = {"pod_cpu_usage_seconds_total": "cpu", "pod_memory_working_set_bytes": "memory"}


def collect_history(directory: str, of: tuple[str, str, str], seconds: int, step: int) -> dict[str, Any]:
    """of: a pod's namespace, name and uid, or three times "" for the node. Points are [seconds since 1970, value]; of
    counters the value is a rate a second, of others the last of a step, or of what was rolled up the largest.
    InvalidArgument for what is too much, NotFound without a store."""
    since, until = _bounds(seconds, step)
    # A rate needs what was read before.
    found = read_history(directory, of, since - max(step, 60) * SECOND, until, step * SECOND)
    return {
        "since": since / SECOND,
        "until": until / SECOND,
        "series": [
            {
                "name": series.name,
                "container": series.container,
                "points": _points(series, *found[series], since, until, step),
            }
            for series in sorted(found)
        ],
    }


def collect_metric(directory: str, name: str, match: tuple[str, str, str], seconds: int, step: int) -> dict[str, Any]:
    """Each series of a name, as above, the largest first, MOST_SERIES at most, and how many there are. match: words of
    namespace, pod and container, "" for any."""
    since, until = _bounds(seconds, step)
    found = read_metric(directory, name, since - max(step, 60) * SECOND, until, step * SECOND)
    shown: list[tuple[float, dict[str, Any]]] = []
    for one, (times, values) in found.items():
        if all(word in text for word, text in zip(match, (one.namespace, one.pod, one.container), strict=True)):
            points = _points(one, times, values, since, until, step)
            if points:
                of = {"namespace": one.namespace, "pod": one.pod, "container": one.container}
                shown.append((max(value for _, value in points), of | {"points": points}))
    largest = [one for _, one in sorted(shown, key=lambda pair: -pair[0])[:MOST_SERIES]]
    return {"since": since / SECOND, "until": until / SECOND, "count": len(shown), "series": largest}


def collect_sparks(directory: str, uids: list[str], seconds: int, step: int) -> dict[str, Any]:
    """Processor and memory of several pods, MOST_PODS at most: {since, until, pods: {uid: {cpu: points, memory:
    points}}}, points as above, with times in whole seconds. Raises as above."""
    if not 0 < len(uids) <= MOST_PODS:
        raise InvalidArgument(f"{len(uids)} pods: 1 to {MOST_PODS} can be had at once")
    since, until = _bounds(seconds, step)
    found = read_pods(directory, list(SPARKS), uids, since - max(step, 60) * SECOND, until, step * SECOND)
    pods: dict[str, dict[str, list[list[float]]]] = {}
    for one, (times, values) in found.items():
        points = [[round(at), value] for at, value in _points(one, times, values, since, until, step)]
        pods.setdefault(one.uid, {})[SPARKS[one.name]] = points
    return {"since": since // SECOND, "until": until // SECOND, "pods": pods}


def collect_names(directory: str) -> dict[str, list[str]]:
    """The names of metrics, and of the namespaces, pods and containers that they are of."""
    found = read_names(directory)
    fields = ("name", "namespace", "pod", "container")
    return {f"{field}s": sorted({getattr(one, field) for one in found} - {""}) for field in fields}


def _bounds(seconds: int, step: int) -> tuple[int, int]:
    if not 0 < seconds <= LONGEST_S or not 0 < step <= seconds or seconds // step > MOST_POINTS:
        text = f"{seconds} s by {step} s: at most {LONGEST_S} s and {MOST_POINTS} points can be had"
        raise InvalidArgument(text, hint="take a longer step")
    until = int(time.time() * SECOND)
    return until - seconds * SECOND, until


def _points(one: Series, times: list[int], values: list[int], since: int, until: int, step: int) -> list[list[float]]:
    points = plan_points(one.name, times, values, since, until, step * SECOND)
    return [[at / SECOND, round(value, 6)] for at, value in points]
