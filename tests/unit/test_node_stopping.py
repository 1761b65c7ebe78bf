"""Probes, hooks and the end of a pod, on a fake clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from pyrun.node.agent.clock import Clock
from pyrun.node.agent.record import Record
from tests.support.node.world import Program, Work, World

ONE = "containers: [{name: web}]"


def after(t: float) -> Callable[[float], bool]:
    return lambda now: now >= t


def until(t: float) -> Callable[[float], bool]:
    return lambda now: now < t


def probed(kind: str, **fields: int) -> str:
    words = ", ".join(f"{k}: {v}" for k, v in fields.items())
    return f"containers: [{{name: web, {kind}Probe: {{tcpSocket: {{port: 80}}, {words}}}}}]"


# --- probes -----------------------------------------------------------------------------------------------------------


def test_readiness_begins_as_failed_and_follows_its_thresholds() -> None:
    w = World(
        probed("readiness", periodSeconds=2, failureThreshold=2, successThreshold=2),
        probes={("web", "readiness"): lambda t: 4 <= t < 20},
    ).run(40)
    assert w.ready == [(0, False), (6, True), (22, False)]
    assert w.when("run web") == [0]


def test_a_probe_waits_for_its_initial_delay_and_then_for_its_period() -> None:
    w = World(probed("readiness", initialDelaySeconds=7, periodSeconds=5)).run(18)
    assert w.when("probe") == [7, 12, 17]


def test_liveness_restarts_after_that_many_failures_in_a_row() -> None:
    w = World(
        probed("liveness", periodSeconds=5, failureThreshold=3),
        programs={"web": [Program(term=2)]},
        probes={("web", "liveness"): lambda t: t < 10 or t == 15 or t > 40},
    ).run(60)
    # 10 fails, 15 is good, 20, 25 and 30 fail.
    assert w.when("stop web: its liveness probe failed") == [30]
    assert (w.when("signal web"), w.when("run web")) == ([30], [0, 32])


def test_liveness_is_not_asked_again_while_the_container_ends() -> None:
    w = World(
        probed("liveness", periodSeconds=1, failureThreshold=1),
        programs={"web": [Program(term=10)]},
        probes={("web", "liveness"): lambda t: t != 5},
    ).run(30)
    assert [t for t in w.when("probe") if 5 < t < 15] == []
    assert w.when("run web") == [0, 15]


def test_liveness_of_a_pod_that_never_restarts_fails_it() -> None:
    w = World(
        "restartPolicy: Never\n" + probed("liveness", periodSeconds=1, failureThreshold=1),
        probes={("web", "liveness"): until(5)},
    ).run(30)
    assert w.phases[-1] == (5, "Failed")


def test_a_probe_may_have_its_own_grace() -> None:
    w = World(
        "terminationGracePeriodSeconds: 100\n"
        + probed("liveness", periodSeconds=1, failureThreshold=1, terminationGracePeriodSeconds=5),
        programs={"web": [Program(term=None)]},
        probes={("web", "liveness"): lambda t: t != 10},
    ).run(30)
    assert (w.when("signal"), w.when("kill")) == ([10], [15])


STARTUP = """
containers:
- name: web
  startupProbe: {tcpSocket: {port: 1}, periodSeconds: 1, failureThreshold: 10}
  livenessProbe: {tcpSocket: {port: 2}, periodSeconds: 1, failureThreshold: 1}
  readinessProbe: {tcpSocket: {port: 3}, periodSeconds: 1}
"""


def test_nothing_else_is_probed_before_startup_succeeded() -> None:
    w = World(STARTUP, probes={("web", "startup"): after(6)}).run(10)
    assert w.when("probe web startup") == [0, 1, 2, 3, 4, 5, 6]
    assert w.when("probe web liveness")[0] == 6 and w.when("probe web readiness")[0] == 6
    assert w.ready == [(0, False), (6, True)]
    assert w.container("web").started


def test_startup_that_never_succeeds_restarts() -> None:
    w = World(STARTUP, probes={("web", "startup"): after(12)}).run(12)
    assert w.when("stop web: its startup probe failed") == [9]
    assert w.when("run web") == [0, 9]


def test_a_new_container_begins_its_probes_anew() -> None:
    w = World(
        probed("readiness", periodSeconds=1), programs={"web": [Program(exits=5.5, code=1), Program()]},
        probes={("web", "readiness"): lambda t: t < 5 or t > 8},
    ).run(20)  # fmt: skip
    assert w.ready == [(0, False), (0, True), (5.5, False), (8.5, True)]


def test_readiness_gates_hold_ready_back() -> None:
    w = World(f"readinessGates: [{{conditionType: example.com/up}}]\n{ONE}")
    w.at(10, lambda: w._see(conditions={"example.com/up": True}))
    w.run(20)
    assert w.ready == [(0, False), (10, True)]
    assert w.condition("ContainersReady") == "True"


# --- hooks ------------------------------------------------------------------------------------------------------------

POST = (
    "containers: [{name: web, lifecycle: {postStart: {exec: {command: [x]}}}, readinessProbe: {tcpSocket: {port: 1}}}]"
)


def test_post_start_runs_beside_the_program_and_holds_probes_back() -> None:
    w = World(POST, hooks={("web", "postStart"): Work(4)}).run(20)
    assert (w.when("run web"), w.when("postStart web")) == ([0], [0])
    assert w.when("probe")[0] == 4
    assert w.ready == [(0, False), (4, True)]


def test_post_start_that_fails_ends_the_container() -> None:
    w = World(POST, hooks={("web", "postStart"): Work(1, "exit status 1")}).run(5)
    assert w.when("stop web: its postStart failed: exit status 1") == [1, 2]
    assert w.when("run web") == [0, 1]


PRE = "terminationGracePeriodSeconds: 30\ncontainers: [{name: web, lifecycle: {preStop: {exec: {command: [x]}}}}]"


def test_pre_stop_comes_before_the_signal() -> None:
    w = World(PRE, hooks={("web", "preStop"): Work(5)}, programs={"web": [Program(term=3)]})
    w.delete(10)
    w.run(100)
    assert (w.when("preStop"), w.when("signal"), w.when("exit")) == ([10], [15], [18])
    assert w.when("forget") == [18] and w.gone


def test_pre_stop_and_the_signal_have_one_deadline() -> None:
    """kubernetes#115817, #117373: the grace must not count twice."""
    w = World(PRE, hooks={("web", "preStop"): Work(20)}, programs={"web": [Program(term=None)]})
    w.delete(10)
    w.run(100)
    assert (w.when("signal"), w.when("kill")) == ([30], [40])


def test_a_pre_stop_that_used_all_leaves_two_seconds() -> None:
    w = World(PRE, hooks={("web", "preStop"): Work(200)}, programs={"web": [Program(term=None)]})
    w.delete(10)
    w.run(60)
    assert (w.when("signal"), w.when("kill")) == ([40], [42])


def test_a_pre_stop_that_fails_does_not_keep_the_container() -> None:
    w = World(PRE, hooks={("web", "preStop"): Work(1, "exit status 1")})
    w.delete(10)
    w.run(60)
    assert w.when("signal") == [11] and w.gone


def test_pre_stop_runs_before_a_restart_too() -> None:
    probe = "livenessProbe: {tcpSocket: {port: 1}, periodSeconds: 1, failureThreshold: 1}"
    w = World(
        PRE.replace("lifecycle", f"{probe}, lifecycle"),
        hooks={("web", "preStop"): Work(2)},
        probes={("web", "liveness"): lambda t: t != 5},
    ).run(20)  # fmt: skip
    assert (w.when("preStop"), w.when("signal"), w.when("run web")) == ([5], [7], [0, 7])


# --- the end ----------------------------------------------------------------------------------------------------------


def test_a_program_that_heeds_the_signal_ends_at_once() -> None:
    w = World(ONE)
    w.delete(10)
    w.run(60)
    assert w.order("stop", "signal", "kill", "exit", "forget") == [
        "stop web: the pod is deleted", "signal web", "exit web 143", "stop sandbox", "forget",
    ]  # fmt: skip


@pytest.mark.parametrize("grace", [1, 5, 30])
def test_one_that_does_not_is_killed_at_the_deadline(grace: int) -> None:
    w = World(f"terminationGracePeriodSeconds: {grace}\n{ONE}", programs={"web": [Program(term=None)]})
    w.delete(10)
    w.run(60)
    assert (w.when("signal"), w.when("kill")) == ([10], [10 + max(grace, 2)])


def test_no_grace_kills_at_once() -> None:
    w = World(PRE)
    w.delete(10, grace=0)
    w.run(60)
    assert (w.when("preStop"), w.when("signal"), w.when("kill"), w.gone) == ([], [], [10], True)


def test_a_second_shorter_delete_shortens_the_grace() -> None:
    w = World(ONE, programs={"web": [Program(term=None)]})
    w.delete(10)
    w.delete(15, grace=0)
    w.run(60)
    assert (w.when("signal"), w.when("kill")) == ([10], [15])


def test_containers_end_side_by_side() -> None:
    w = World("containers: [{name: a}, {name: b}]", programs={"a": [Program(term=5)], "b": [Program(term=5)]})
    w.delete(10)
    w.run(60)
    assert w.when("signal") == [10, 10] and w.when("forget") == [15]


SIDES = """
terminationGracePeriodSeconds: 30
initContainers: [{name: s1, restartPolicy: Always}, {name: s2, restartPolicy: Always}]
containers: [{name: web}]
"""


def test_sidecars_end_after_the_apps_in_reverse() -> None:
    w = World(SIDES, programs={"web": [Program(term=4)], "s2": [Program(term=3)], "s1": [Program(term=2)]})
    w.delete(10)
    w.run(60)
    assert (w.when("signal web"), w.when("signal s2"), w.when("signal s1")) == ([10], [14], [17])
    assert w.when("forget") == [19]


def test_all_of_it_has_one_deadline() -> None:
    w = World(SIDES, programs={name: [Program(term=None)] for name in ("web", "s2", "s1")})
    w.delete(10)
    w.run(100)
    assert w.when("kill web") == [40]
    assert (w.when("signal s2"), w.when("signal s1")) == ([40], [40])
    assert (w.when("kill s2"), w.when("kill s1")) == ([42], [42])
    assert w.when("forget") == [42]


def test_a_sidecar_is_not_started_again_while_the_pod_ends() -> None:
    w = World(SIDES, programs={"web": [Program(term=10)], "s2": [Program(exits=12)]})
    w.delete(10)
    w.run(60)
    assert w.when("run s2") == [0]


def test_readiness_goes_on_while_a_pod_ends_liveness_does_not() -> None:
    w = World(
        """
containers:
- name: web
  livenessProbe: {tcpSocket: {port: 1}, periodSeconds: 1, failureThreshold: 1}
  readinessProbe: {tcpSocket: {port: 1}, periodSeconds: 1, failureThreshold: 1}
""",
        programs={"web": [Program(term=10)]},
        probes={("web", "liveness"): until(10.5), ("web", "readiness"): until(12.5)},
    )
    w.delete(10)
    w.run(60)
    assert max(w.when("probe web liveness")) <= 10
    assert w.ready == [(0, False), (0, True), (13, False)]


def test_a_pod_that_is_deleted_while_it_backs_off_is_not_run_again() -> None:
    w = World(ONE, programs={"web": [Program(exits=1, code=1)]})
    w.delete(5)
    w.run(60)
    assert w.when("run web") == [0, 1] and w.gone


def test_a_pod_that_is_deleted_while_it_pulls_goes_at_once() -> None:
    w = World(ONE, pulls={"i:1": [Work(100)]})
    w.delete(5)
    w.run(60)
    assert w.when("forget") == [5] and w.when("run web") == []


def test_a_pod_that_is_deleted_while_its_sandbox_is_made_waits_for_that() -> None:
    """What is half made is not forgotten."""
    w = World(ONE, sandboxes=[Work(10)])
    w.delete(5)
    w.run(60)
    assert (w.when("stop sandbox"), w.when("forget")) == ([10], [10])


def test_a_deleted_pod_ends_with_a_phase_that_is_final() -> None:
    w = World(ONE, programs={"web": [Program(term_code=0)]})
    w.delete(5)
    w.run(60)
    assert w.phases[-1] == (5, "Succeeded")
    w = World(ONE)
    w.delete(5)
    w.run(60)
    assert w.phases[-1] == (5, "Failed")


# --- a clock that is set ----------------------------------------------------------------------------------------------

DAY = 86400.0


def test_probes_go_on_when_the_clock_is_set_back() -> None:
    """One is now, as nobody knows how long ago the last one was; then they have their period."""
    w = World(probed("liveness", periodSeconds=5))
    w.run(12).set_clock(-DAY)
    w.run(24 - DAY)
    assert w.when("probe") == [0, 5, 10, 12 - DAY, 17 - DAY, 22 - DAY]


def test_a_probe_that_waits_for_its_initial_delay_when_the_clock_is_set_back() -> None:
    w = World(probed("readiness", initialDelaySeconds=60, periodSeconds=5))
    w.run(12).set_clock(-DAY)
    w.run(18 - DAY)
    assert w.when("probe") == [12 - DAY, 17 - DAY]


def test_the_end_of_a_pod_does_not_wait_a_day_longer() -> None:
    w = World(f"terminationGracePeriodSeconds: 30\n{ONE}", programs={"web": [Program(term=None)]})
    w.delete(10)
    w.run(15).set_clock(-DAY)
    w.run(100 - DAY)
    assert (w.when("signal web"), w.when("kill web")) == ([10], [45 - DAY])
    assert w.gone


@pytest.mark.parametrize("seconds", [-DAY, DAY])
def test_a_back_off_ends_when_the_clock_is_set(seconds: float) -> None:
    w = World(ONE, programs={"web": [Program(exits=1, code=1), Program(exits=1, code=1), Program()]})
    w.run(7).set_clock(seconds)
    w.run(40 + seconds)
    assert w.when("run web") == [0, 1, 7 + seconds]


def test_a_clock_knows_by_how_much_it_was_set() -> None:
    wall, steady = [1000.0], [5.0]
    clock = Clock(lambda: wall[0], lambda: steady[0])
    wall[0], steady[0] = 1060.0, 65.0
    assert clock.step() == 0
    wall[0], steady[0] = 1070.5, 75.0  # slewed by half a second
    assert clock.step() == 0
    for seconds in (DAY, -2 * DAY, 1.0):
        wall[0] += seconds
        assert clock.step() == seconds and clock.step() == 0


@pytest.mark.parametrize("seconds", [-DAY, DAY])
@pytest.mark.parametrize("waits", [True, False])
def test_a_pod_that_is_being_ended_keeps_its_grace_when_the_clock_is_set(seconds: float, waits: bool) -> None:
    """As the agent shifts its record: with the signal sent, or still in preStop."""
    hook = "lifecycle: {preStop: {exec: {command: [x]}}}" if waits else ""
    text = f"terminationGracePeriodSeconds: 30\ncontainers: [{{name: web, {hook}}}]"
    w = World(text, programs={"web": [Program(term=None)]}, hooks={("web", "preStop"): Work(50)})
    w.delete(10)
    w.run(15).set_clock(seconds)
    stops = {a.id: a.stop for a in w.observed.attempts if a.stop is not None}
    record = Record(uid="u", file="f", pod=w.desired.pod, created=0.0, deleted=w.desired.deleted, stops=stops)
    record.shift(seconds)
    w.desired = replace(w.desired, deleted=record.deleted)
    w.observed = replace(
        w.observed, attempts=tuple(replace(a, stop=record.stops.get(a.id)) for a in w.observed.attempts)
    )
    w.run(100 + seconds)
    signal = 40 + seconds if waits else 10
    assert w.when("signal web") == [signal] and w.when("kill web") == [40 + seconds + (2 if waits else 0)]
    assert w.gone


@pytest.mark.parametrize("seconds", [-DAY, DAY])
def test_a_pod_that_may_be_active_for_a_time_has_the_rest_of_it_when_the_clock_is_set(seconds: float) -> None:
    w = World(f"activeDeadlineSeconds: 60\n{ONE}").run(20)
    w.set_clock(seconds)
    record = Record(uid="u", file="f", pod=w.desired.pod, created=0.0, started=w.observed.started)
    record.shift(seconds)
    w.observed = replace(w.observed, started=record.started)
    w.run(100 + seconds)
    assert w.when("fail DeadlineExceeded") == [60 + seconds]
