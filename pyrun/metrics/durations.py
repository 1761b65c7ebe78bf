"""What a daemon of ours tells of its calls (rpc/durations.py) and steps (pod/step_times.py) as families; calls have the
names that go-grpc-prometheus gave them, which dashboards of containerd know. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .text import COUNTER, Family, Histogram

LABELS = ("grpc_method", "grpc_service", "grpc_type")
STATUS = "durations"  # the key of Status' info


def plan_durations(told: Mapping[str, Any]) -> list[Family | Histogram]:
    """told: Durations.value(), and StepTimes.value(). KeyError, TypeError or ValueError where it is something else."""
    bounds = [float(bound) for bound in told["bounds"]]
    calls = Histogram("grpc_server_handling_seconds", "Seconds that calls of the CRI took", LABELS, bounds)
    codes = Family("grpc_server_handled_total", "Calls of the CRI, by how they ended", COUNTER, ("grpc_code", *LABELS))
    for service, method, kind, counts, total in told["calls"]:
        calls.values[str(method), str(service), str(kind)] = (_numbers(counts, bounds), float(total))
    for service, method, kind, code, count in told["codes"]:
        codes.values[str(code), str(method), str(service), str(kind)] = int(count)
    text = "Seconds by which the daemon's event loop was late"
    lag = Histogram("pyrun_loop_lag_seconds", text, (), bounds)
    counts, total = told["lag"]
    lag.values[()] = (_numbers(counts, bounds), float(total))
    return [calls, codes, lag, *(_steps(told["steps"]) if "steps" in told else ())]


def _steps(told: Mapping[str, Any]) -> list[Family | Histogram]:
    """StepTimes.value()."""
    bounds, labels = [float(bound) for bound in told["bounds"]], ("lane", "step")
    took = Histogram("pyrun_step_duration_seconds", "Seconds that steps of containers' plans took", labels, bounds)
    failed = Family("pyrun_step_failures_total", "Steps of containers' plans that failed", COUNTER, labels)
    for lane, step, counts, total in told["took"]:
        took.values[str(lane), str(step)] = (_numbers(counts, bounds), float(total))
    for lane, step, count in told["failed"]:
        failed.values[str(lane), str(step)] = int(count)
    return [took, failed]


def _numbers(counts: Any, bounds: list[float]) -> list[int]:
    found = [int(count) for count in counts]
    if len(found) != len(bounds) + 1:
        raise ValueError("a histogram has a count for each bound, and one more")
    return found
