"""Pods on a fake clock: what starts when, what is run again, and what the status says meanwhile."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pyrun.node.plan.observed import NodeFacts
from tests.support.node.world import Program, Work, World

ONE = "containers: [{name: web}]"


def done(code: int = 0, after: float = 1.0) -> Program:
    return Program(exits=after, code=code)


# --- order ------------------------------------------------------------------------------------------------------------


def test_a_pod_starts() -> None:
    w = World(ONE).run(1)
    assert w.log == ["0 admit", "0 pull i:1", "0 run sandbox 0", "0 run web 0"]
    assert w.phases == [(0, "Pending"), (0, "Running")]
    assert w.condition("Ready") == "True"
    assert w.container("web").state.running is not None  # type: ignore[union-attr]


def test_init_containers_run_in_order_each_to_success() -> None:
    w = World(
        "initContainers: [{name: a}, {name: b}]\ncontainers: [{name: web}, {name: two}]",
        programs={"a": [done(after=5)], "b": [done(after=3)]},
    ).run(20)
    assert w.order("run ", "exit") == [
        "run sandbox 0", "run a 0", "exit a 0", "run b 0", "exit b 0", "run web 0", "run two 0",
    ]  # fmt: skip
    assert (w.when("run a"), w.when("run b"), w.when("run web"), w.when("run two")) == ([0], [5], [8], [8])
    assert w.phases == [(0, "Pending"), (8, "Running")]
    assert w.container("a").ready and w.container("a").state.terminated is not None  # type: ignore[union-attr]


def test_while_init_runs_the_app_waits_with_a_reason() -> None:
    w = World("initContainers: [{name: a}, {name: b}]\ncontainers: [{name: web}]").run(5)
    for name in ("b", "web"):
        waiting = w.container(name).state.waiting  # type: ignore[union-attr]
        assert waiting is not None and waiting.reason == "PodInitializing"
    assert w.condition("Initialized") == "False" and w.condition("PodReadyToStartContainers") == "True"


def test_an_init_container_that_fails_is_tried_again() -> None:
    w = World("initContainers: [{name: a}]\ncontainers: [{name: web}]", programs={"a": [done(1), done(1), done()]})
    w.run(60)
    assert w.when("run a") == [0, 1, 12]
    assert w.when("run web") == [13]


def test_an_init_container_that_fails_with_never_fails_the_pod() -> None:
    w = World("restartPolicy: Never\ninitContainers: [{name: a}]\ncontainers: [{name: web}]", programs={"a": [done(3)]})
    w.run(60)
    assert w.phases[-1] == (1, "Failed")
    assert w.when("run web") == []
    assert w.when("stop sandbox") == [1]


def test_a_sidecar_starts_and_the_next_waits_for_its_startup_probe() -> None:
    w = World(
        """
initContainers:
- {name: side, restartPolicy: Always, startupProbe: {tcpSocket: {port: 1}, periodSeconds: 2, failureThreshold: 9}}
- {name: b}
containers: [{name: web}]
""",
        programs={"b": [done()]},
        probes={("side", "startup"): lambda t: t >= 5},
    ).run(20)
    assert (w.when("run side"), w.when("run b"), w.when("run web")) == ([0], [6], [7])


def test_a_sidecar_without_a_probe_does_not_hold_up() -> None:
    w = World("initContainers: [{name: side, restartPolicy: Always}]\ncontainers: [{name: web}]").run(5)
    assert (w.when("run side"), w.when("run web")) == ([0], [0])


def test_a_sidecar_that_ends_is_run_again_whatever_the_policy() -> None:
    w = World(
        "restartPolicy: Never\ninitContainers: [{name: side, restartPolicy: Always}]\ncontainers: [{name: web}]",
        programs={"side": [done(0, 5), Program()]},
    ).run(30)
    assert w.when("run side") == [0, 5] and w.when("run web") == [0]


def test_sidecars_end_when_the_apps_are_done_and_in_reverse() -> None:
    w = World(
        """
restartPolicy: Never
initContainers: [{name: s1, restartPolicy: Always}, {name: s2, restartPolicy: Always}]
containers: [{name: web}]
""",
        programs={"web": [done(0, 5)], "s1": [Program(term=1)], "s2": [Program(term=2)]},
    ).run(60)
    assert (w.when("signal s2"), w.when("signal s1")) == ([5], [7])
    assert w.phases[-1] == (8, "Succeeded")
    assert w.when("stop sandbox") == [8]


def test_an_ephemeral_container_is_added_and_never_run_again() -> None:
    w = World(ONE, programs={"dbg": [done(1, 2)]})
    w.change(5, "containers: [{name: web}]\nephemeralContainers: [{name: dbg, targetContainerName: web}]")
    w.run(60)
    assert w.when("run dbg") == [5]
    assert w.when("run web") == [0]
    assert w.container("dbg").state.terminated is not None  # type: ignore[union-attr]
    assert w.phases[-1][1] == "Running"


# --- restarts and back-off --------------------------------------------------------------------------------------------


def test_back_off_doubles_up_to_five_minutes() -> None:
    w = World(ONE, programs={"web": [done(1, 0.5)]}).run(1300)
    starts = w.when("run web")
    waits = [b - a - 0.5 for a, b in zip(starts, starts[1:], strict=False)]
    assert waits == [0, 10, 20, 40, 80, 160, 300, 300, 300]


def test_back_off_begins_anew_after_ten_minutes_of_running() -> None:
    w = World(ONE, programs={"web": [done(1, 0)] * 3 + [done(1, 601)] + [done(1, 0)]}).run(700)
    assert w.when("run web") == [0, 0, 10, 30, 631, 641, 661]


def test_nine_minutes_of_running_are_not_enough() -> None:
    w = World(ONE, programs={"web": [done(1, 0), done(1, 540), done(1, 0)]}).run(600)
    assert w.when("run web") == [0, 0, 550, 570]


def test_a_node_may_shorten_the_longest_wait() -> None:
    w = World(ONE, programs={"web": [done(1, 0)]}, node=NodeFacts(longest_back_off=5)).run(21)
    assert w.when("run web") == [0, 0, 5, 10, 15, 20]


def test_crash_loop_is_told_with_what_is_left() -> None:
    w = World(ONE, programs={"web": [done(7, 1)]}).run(5)
    found = w.container("web")
    assert found.restartCount == 1 and not found.ready
    waiting = found.state.waiting  # type: ignore[union-attr]
    assert waiting is not None and waiting.reason == "CrashLoopBackOff"
    assert waiting.message is not None and waiting.message.startswith("back-off 7 s left")
    assert found.lastState is not None and found.lastState.terminated is not None
    assert found.lastState.terminated.exitCode == 7
    assert w.phases[-1][1] == "Running"


def test_a_person_may_have_it_tried_now() -> None:
    from dataclasses import replace

    w = World(ONE, programs={"web": [done(1, 0)]})
    w.at(100, lambda: setattr(w, "desired", replace(w.desired, retried=w.now)))
    w.run(125)
    assert w.when("run web") == [0, 0, 10, 30, 70, 100, 110]


@pytest.mark.parametrize(
    ("policy", "code", "runs", "phase"),
    [
        ("Always", 0, 2, "Running"), ("Always", 1, 2, "Running"), ("OnFailure", 0, 1, "Succeeded"),
        ("OnFailure", 1, 2, "Running"), ("Never", 0, 1, "Succeeded"), ("Never", 1, 1, "Failed"),
    ],
)  # fmt: skip
def test_restart_policies(policy: str, code: int, runs: int, phase: str) -> None:
    w = World(f"restartPolicy: {policy}\n{ONE}", programs={"web": [done(code)]}).run(5)
    assert len(w.when("run web")) == runs
    assert w.phases[-1][1] == phase


def test_of_two_containers_one_that_fails_fails_the_pod_when_both_are_done() -> None:
    w = World(
        "restartPolicy: Never\ncontainers: [{name: a}, {name: b}]", programs={"a": [done(1, 2)], "b": [done(0, 9)]}
    ).run(20)
    assert w.phases == [(0, "Pending"), (0, "Running"), (9, "Failed")]


def test_a_container_may_have_its_own_policy() -> None:
    w = World(
        "restartPolicy: Always\ncontainers: [{name: a, restartPolicy: Never}, {name: b, restartPolicy: OnFailure}]",
        programs={"a": [done(1)], "b": [done(0, 3)]},
    ).run(20)
    assert w.when("run") == [0, 0, 0]
    assert w.phases[-1] == (3, "Failed")


@pytest.mark.parametrize(("operator", "code", "runs"), [("In", 42, 2), ("In", 1, 1), ("NotIn", 42, 1), ("NotIn", 1, 2)])
def test_restart_rules_come_before_the_policy(operator: str, code: int, runs: int) -> None:
    w = World(
        f"""
restartPolicy: Always
containers:
- name: web
  restartPolicy: Never
  restartPolicyRules: [{{action: Restart, exitCodes: {{operator: {operator}, values: [42]}}}}]
""",
        programs={"web": [done(code, 1)]},
    ).run(5)
    assert len(w.when("run web")) == runs


def test_a_program_that_can_not_be_started_is_tried_again() -> None:
    w = World(ONE, programs={"web": [Program(error="no such file"), Program()]}).run(30)
    assert w.when("run web") == [0, 0]
    last = w.container("web").lastState
    assert last is not None and last.terminated is not None and last.terminated.reason == "StartError"


def test_a_changed_image_restarts_that_container_at_once_whatever_the_policy() -> None:
    w = World("restartPolicy: Never\ncontainers: [{name: a, image: x:1}, {name: b}]", programs={"a": [Program(term=1)]})
    w.change(50, "restartPolicy: Never\ncontainers: [{name: a, image: x:2}, {name: b}]")
    w.run(100)
    assert (w.when("run a"), w.when("run b"), w.when("pull x:2")) == ([0, 51], [0], [51])


def test_a_lost_sandbox_runs_the_inits_again() -> None:
    w = World(
        "initContainers: [{name: i}]\ncontainers: [{name: web}]", programs={"i": [done(0, 2)], "web": [Program()]}
    )
    w.lose_sandbox(50)
    w.run(100)
    assert w.when("run sandbox") == [0, 50]
    assert (w.when("run i"), w.when("run web")) == ([0, 50], [2, 52])
    assert w.container("web").restartCount == 1


def test_a_lost_sandbox_of_a_pod_that_never_restarts_fails_it() -> None:
    w = World(f"restartPolicy: Never\n{ONE}")
    w.lose_sandbox(50)
    w.run(100)
    assert w.when("run sandbox") == [0]
    assert w.phases[-1] == (50, "Failed")


def test_a_sandbox_that_fails_is_tried_again_later() -> None:
    w = World(ONE, sandboxes=[Work(1, "no address is free"), Work(1, "no address is free"), Work(1)]).run(100)
    assert w.when("run sandbox") == [0, 11, 32]
    assert w.when("run web") == [33]


def test_only_the_newest_dead_container_is_kept() -> None:
    w = World(ONE, programs={"web": [done(1, 0)]}).run(100)
    assert len([a for a in w.observed.attempts if a.ended]) <= 2
    assert w.order("remove")[:2] == ["remove web 0", "remove web 1"]


# --- images -----------------------------------------------------------------------------------------------------------


def test_images_are_pulled_side_by_side_while_the_sandbox_is_made() -> None:
    w = World(
        "containers: [{name: a, image: x:1}, {name: b, image: y:1}, {name: c, image: x:1}]",
        pulls={"x:1": [Work(4)], "y:1": [Work(6)]},
        sandboxes=[Work(1)],
    ).run(20)
    assert (w.when("pull x"), w.when("pull y"), w.when("run sandbox")) == ([0], [0], [0])
    assert (w.when("run a"), w.when("run c"), w.when("run b")) == ([4], [4], [6])


def test_no_more_pulls_at_a_time_than_the_node_allows() -> None:
    w = World(
        "containers: [{name: a, image: x:1}, {name: b, image: y:1}]",
        pulls={"x:1": [Work(4)], "y:1": [Work(4)]},
        node=NodeFacts(parallel_pulls=1),
    ).run(20)
    assert (w.when("pull x"), w.when("pull y")) == ([0], [4])


def test_a_pull_that_fails_backs_off() -> None:
    w = World(ONE, pulls={"i:1": [Work(1, "not found")] * 4})
    w.run(5)
    waiting = w.container("web").state.waiting  # type: ignore[union-attr]
    assert waiting is not None and waiting.reason == "ImagePullBackOff"
    assert waiting.message is not None and "again in 6 s: not found" in waiting.message
    w.run(300)
    assert w.when("pull") == [0, 11, 32, 73, 154]
    assert w.when("run web") == [154]


def test_what_is_no_name_of_an_image_is_not_pulled() -> None:
    w = World("containers: [{name: web, image: Not A Name}]").run(30)
    assert w.when("pull") == [] and w.when("run web") == []
    waiting = w.container("web").state.waiting  # type: ignore[union-attr]
    assert waiting is not None and waiting.reason == "InvalidImageName" and "'Not A Name'" in str(waiting.message)


def test_never_does_not_pull() -> None:
    w = World("containers: [{name: web, imagePullPolicy: Never}]").run(30)
    assert w.when("pull") == [] and w.when("run web") == []
    waiting = w.container("web").state.waiting  # type: ignore[union-attr]
    assert waiting is not None and waiting.reason == "ErrImageNeverPull"


OF_IMAGES = """
initContainers: [{name: first}]
containers: [{name: web, volumeMounts: [{name: v, mountPath: /v}]}, {name: other}]
volumes: [{name: v, image: {reference: "data:1"}}, {name: unused, image: {reference: "none:1"}}]
"""


def test_who_mounts_an_image_waits_for_it_and_nobody_else_does() -> None:
    w = World(OF_IMAGES, programs={"first": [done()]}, pulls={"data:1": [Work(2, "not found"), Work(3)]}).run(9)
    assert (w.when("pull data:1"), w.when("pull i:1"), w.when("pull none")) == ([0], [0], [])
    assert (w.when("run first"), w.when("run other"), w.when("run web")) == ([0], [1], [])
    waiting = w.container("web").state.waiting  # type: ignore[union-attr]
    assert waiting is not None and waiting.reason == "ImagePullBackOff" and "'data:1'" in str(waiting.message)
    w.run(20)
    assert (w.when("pull data:1"), w.when("run web")) == ([0, 12], [15])


def test_an_image_of_a_volume_that_must_be_here() -> None:
    w = World(OF_IMAGES.replace('"data:1"', '"data:1", pullPolicy: Never')).run(9)
    assert (w.when("pull data"), w.when("run web")) == ([], [])
    waiting = w.container("web").state.waiting  # type: ignore[union-attr]
    assert waiting is not None and waiting.reason == "ErrImageNeverPull"


# --- admission and deadlines ------------------------------------------------------------------------------------------


def test_a_pod_that_is_refused_has_failed_and_nothing_is_made() -> None:
    w = World(ONE, admit=("OutOfcpu", "2 wanted, 1 left")).run(30)
    assert w.log == ["0 admit"]
    assert w.phases[-1] == (0, "Failed")
    assert w.status.reason == "OutOfcpu"


def test_an_active_deadline_ends_the_pod() -> None:
    w = World(f"activeDeadlineSeconds: 20\n{ONE}", programs={"web": [Program(term=3)]}).run(60)
    assert (w.when("fail"), w.when("signal web")) == ([20], [20])
    assert w.phases == [(0, "Pending"), (0, "Running"), (23, "Failed")]
    assert w.status.reason == "DeadlineExceeded"


def test_a_pod_that_was_done_in_time_is_not_failed_later() -> None:
    w = World(f"restartPolicy: Never\nactiveDeadlineSeconds: 20\n{ONE}", programs={"web": [done()]}).run(60)
    assert w.phases[-1] == (1, "Succeeded")
    assert w.when("fail") == []


# --- all containers anew (KEP-5532) -----------------------------------------------------------------------------------

RULE = (
    "restartPolicy: Never,"
    " restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [42]}}]"
)


def test_all_containers_restart_with_one_that_asks_for_it() -> None:
    """Init containers too, in the same sandbox; who runs is killed without its grace and its preStop."""
    w = World(
        "restartPolicy: Never\n"
        "initContainers: [{name: setup}, {name: side, restartPolicy: Always}]\n"
        f"containers: [{{name: web, {RULE}}}, {{name: two, lifecycle: {{preStop: {{sleep: {{seconds: 9}}}}}}}}]",
        programs={"setup": [done(after=1)], "web": [done(42, after=5), Program()], "two": [Program(term=None)]},
    ).run(30)
    assert w.order("run ", "exit", "restart", "preStop") == [
        "run sandbox 0", "run setup 0", "exit setup 0", "run side 0", "run web 0", "run two 0", "exit web 42",
        "restart all: container web has ended with 42", "exit side 137", "exit two 137",
        "run setup 1", "exit setup 0", "run side 1", "run web 1", "run two 1",
    ]  # fmt: skip
    assert w.phases == [(0, "Pending"), (1, "Running"), (6, "Pending"), (7, "Running")]
    assert [w.container(name).restartCount for name in ("setup", "side", "web", "two")] == [1, 1, 1, 1]
    assert (w.condition("AllContainersRestarting"), w.condition("Ready")) == ("False", "True")
    before = {name: w.container(name).lastState.terminated for name in ("setup", "web", "two")}  # type: ignore[union-attr]
    assert {name: (a.reason, a.exitCode) for name, a in before.items() if a} == {
        "setup": ("Completed", 0), "web": ("Error", 42), "two": ("RestartingAllContainers", 137),
    }  # fmt: skip


def test_while_all_containers_restart_the_pod_says_so_and_stays_initialized() -> None:
    w = World(
        f"restartPolicy: Never\ninitContainers: [{{name: setup}}]\ncontainers: [{{name: web, {RULE}}}]",
        programs={"setup": [done(after=1), done(after=50)], "web": [done(42)]},
    ).run(10)
    assert (w.condition("Initialized"), w.condition("Ready")) == ("True", "False")
    waiting = w.container("web").state.waiting  # type: ignore[union-attr]
    assert waiting is not None and waiting.reason == "RestartingAllContainers"
    assert World("containers: [{name: web}]").run(1).reason("AllContainersRestarting") is None


def test_another_code_restarts_nobody() -> None:
    w = World(
        f"restartPolicy: Never\ncontainers: [{{name: web, {RULE}}}, {{name: two}}]",
        programs={"web": [done(1)], "two": [done(0, after=3)]},
    ).run(30)
    assert w.when("restart") == [] and w.phases[-1] == (3, "Failed")
    assert w.reason("AllContainersRestarting") == ("PodFailed", None)


def test_containers_that_were_done_run_once_more() -> None:
    """Also of a pod that never restarts, and though the one that asks is the last that ran."""
    w = World(
        f"restartPolicy: Never\ncontainers: [{{name: web, {RULE}}}, {{name: two}}]",
        programs={"web": [done(42, after=9), done(0)], "two": [done(0)]},
    ).run(60)
    assert (w.when("run two"), w.when("run web")) == ([0, 9], [0, 9])
    assert w.phases[-1] == (10, "Succeeded")


def test_an_init_container_may_have_all_begin_anew() -> None:
    w = World(
        f"restartPolicy: Never\ninitContainers: [{{name: a}}, {{name: b, {RULE}}}]\ncontainers: [{{name: web}}]",
        programs={"a": [done()], "b": [done(42), done(0)]},
    ).run(60)
    assert w.order("run ") == ["run sandbox 0", "run a 0", "run b 0", "run a 1", "run b 1", "run web 0"]
    assert w.phases[-1][1] == "Running" and w.container("web").restartCount == 0


def test_who_has_all_restarted_again_and_again_backs_off() -> None:
    w = World(
        f"restartPolicy: Never\ncontainers: [{{name: web, {RULE}}}, {{name: two}}]",
        programs={"web": [done(42)], "two": [Program()]},
    ).run(100)
    assert w.when("run web") == [0, 1, 12, 33, 74] and w.when("run two") == [0, 1, 2, 13, 34, 75]


def test_nothing_is_restarted_while_a_container_is_being_started() -> None:
    w = World(f"restartPolicy: Never\ncontainers: [{{name: web, {RULE}}}, {{name: two}}]",
              programs={"web": [done(42), Program()]})  # fmt: skip
    w.run(0.5)
    w.observed = replace(w.observed, busy=frozenset({("run", "two")}))
    w.run(5)
    assert w.when("restart") == []
    w.at(6, lambda: setattr(w, "observed", replace(w.observed, busy=frozenset())))
    w.run(9)
    assert w.when("restart") == [6] and w.condition("Ready") == "True"


def test_a_deleted_pod_does_not_restart_all() -> None:
    w = World(f"restartPolicy: Never\ncontainers: [{{name: web, {RULE}}}]", programs={"web": [Program(term_code=42)]})
    w.delete(5)
    w.run(20)
    assert w.gone and w.when("restart") == []


# --- what else a status has -------------------------------------------------------------------------------------------


def test_a_status_has_the_mounts_of_each_container() -> None:
    w = World(
        "volumes: [{name: v, emptyDir: {}}]\n"
        "containers: [{name: web, volumeMounts: [{name: v, mountPath: /a}, {name: v, mountPath: /b, readOnly: true},"
        " {name: v, mountPath: /c, readOnly: true, recursiveReadOnly: IfPossible}]}]"
    ).run(1)
    found = [(m.mountPath, m.readOnly, m.recursiveReadOnly) for m in w.container("web").volumeMounts or ()]
    assert found == [("/a", None, None), ("/b", True, "Disabled"), ("/c", True, "Enabled")]


def test_a_pod_without_a_sandbox_says_which_way() -> None:
    w = World("restartPolicy: Never\ncontainers: [{name: web}]", sandboxes=[Work(takes=5)]).run(1)
    assert w.reason("PodReadyToStartContainers") == ("PodSandboxNotReady", "no pod sandbox exists")
    w.run(6)
    assert w.reason("PodReadyToStartContainers") == (None, None)
    w.lose_sandbox(7)
    w.run(8)
    assert w.reason("PodReadyToStartContainers") == ("PodSandboxNotReady", "pod sandbox is not ready")


def test_the_end_of_a_container_that_comes_again_at_once_is_told_as_such() -> None:
    """CrashLoopBackOff is one that waits."""
    w = World(ONE, programs={"web": [done(2)]}).run(0.5)
    w.now += 0.5
    w.observed = replace(w.observed, attempts=(replace(w.observed.attempts[0], finished=w.now, code=2),))
    state = w.container("web").state
    assert state is not None and state.terminated is not None and state.terminated.exitCode == 2
    assert (w.container("web").restartCount, w.container("web").lastState) == (0, None)
    w = World(ONE, programs={"web": [done(2)]}).run(3)
    state = w.container("web").state
    assert state is not None and state.waiting is not None and state.waiting.reason == "CrashLoopBackOff"


def test_a_container_runs_when_its_post_start_is_through() -> None:
    text = "restartPolicy: Never\ncontainers: [{name: web, lifecycle: {postStart: {exec: {command: [x]}}}}]"
    w = World(text, hooks={("web", "postStart"): Work(5)}).run(3)
    state = w.container("web").state
    assert state is not None and state.waiting is not None and state.waiting.reason == "ContainerCreating"
    assert w.run(6).phases == [(0, "Pending"), (5, "Running")]
    w = World(text, hooks={("web", "postStart"): Work(5, "exit 1")}, programs={"web": [Program(term_code=0)]}).run(9)
    assert w.phases == [(0, "Pending"), (5, "Succeeded")]


def test_an_init_container_that_runs_is_started_and_not_ready() -> None:
    w = World("initContainers: [{name: a}]\ncontainers: [{name: web}]", programs={"a": [done(after=5)]}).run(2)
    assert (w.container("a").started, w.container("a").ready) == (True, False)
    w.run(8)
    assert (w.container("a").started, w.container("a").ready) == (False, True)


def test_a_pod_has_a_reason_when_it_has_failed() -> None:
    text = "activeDeadlineSeconds: 5\nterminationGracePeriodSeconds: 30\ncontainers: [{name: web}]"
    w = World(text, programs={"web": [Program(term=10)]}).run(8)
    assert (w.status.phase, w.status.reason) == ("Running", None)
    w.run(20)
    assert (w.status.phase, w.status.reason) == ("Failed", "DeadlineExceeded")
