"""What steps of plans took, as it is counted and told."""

from __future__ import annotations

import json

import pytest

from pyrun.metrics.durations import plan_durations
from pyrun.metrics.text import render
from pyrun.plan.model.plan import Plan
from pyrun.plan.model.steps import Chdir, Clone3, PivotRoot, Step
from pyrun.pod.step_times import BOUNDS, StepTimes
from pyrun.rpc.durations import Durations

PLAN = Plan([[Clone3()], [Chdir(), Chdir()], [PivotRoot()], [Step()]], [], [], 3)


def samples(times: StepTimes) -> dict[str, float]:
    told = json.loads(json.dumps(Durations().value() | times.value()))
    lines = render(plan_durations(told)).splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


def test_each_step_is_in_its_bucket() -> None:
    times = StepTimes()
    times.add(PLAN, [2_000_000_000, 5_000, 5_001, -1, -1], None)
    times.add(PLAN, [1, 0, 1_000_000_000, 250_000, -1], None)
    found = samples(times)
    of = "pyrun_step_duration_seconds_bucket{"
    chdir = [found[f'{of}lane="stage1",step="chdir",le="{bound}"}}'] for bound in (*BOUNDS, "+Inf")]
    assert chdir == [2, 3, 3, 3, 3, 3, 3, 4, 4]
    clone = [found[f'{of}lane="parent",step="clone3",le="{bound}"}}'] for bound in (BOUNDS[0], 1.0, "+Inf")]
    assert clone == [1, 1, 2]
    assert found['pyrun_step_duration_seconds_count{lane="stage2",step="pivot_root"}'] == 1
    assert found['pyrun_step_duration_seconds_sum{lane="stage1",step="chdir"}'] == pytest.approx(1.000010001)
    assert not any("undo" in name or "failures" in name for name in found)


def test_a_step_that_fails_is_counted_and_no_time_is_made_up() -> None:
    times = StepTimes()
    times.add(PLAN, [], 3)
    times.add(PLAN, [], 3)
    found = samples(times)
    assert found['pyrun_step_failures_total{lane="stage2",step="pivot_root"}'] == 2
    assert not any("duration" in name and "step" in name for name in found)
