"""Resources that change while a pod runs: what is asked, given and written, and in which order; on a fake clock."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pyrun.node.admission import Allocatable, Neighbour, resize_refusal
from pyrun.node.agent.record import Record
from pyrun.node.agent.resizing import know_resources, summary
from pyrun.node.plan.resize import is_resize
from pyrun.node.supported import unsupported
from tests.support.node.world import Program, World, pod_of

GIB = 1 << 30


def one(cpu: str, memory: str, more: str = "", name: str = "web") -> str:
    return f"{{name: {name}, resources: {{limits: {{cpu: '{cpu}', memory: {memory}}}}}{more}}}"


def pod(*containers: str, more: str = "") -> str:
    return f"{more}\ncontainers: [{', '.join(containers)}]"


def resources(w: World, name: str = "web") -> Any:
    return msgspec.to_builtins(w.container(name).resources)


def test_a_container_has_what_it_was_given_and_no_condition() -> None:
    w = World(pod(one("1", "1Gi"))).run(2)
    found = w.container("web")
    assert resources(w) == {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}}
    assert found.allocatedResources == {"cpu": "1", "memory": "1Gi"}
    assert w.reason("PodResizePending") is None and w.reason("PodResizeInProgress") is None


def test_more_is_written_to_the_pod_first() -> None:
    w = World(pod(one("1", "1Gi")))
    w.resize(5, pod(one("2", "2Gi")))
    w.run(10)
    assert w.order("allocate", "resize") == ["allocate", "resize pod memory, web memory, pod cpu, web cpu"]
    assert w.when("resize") == [5] and w.when("run web") == [0]
    assert resources(w)["limits"] == {"cpu": "2", "memory": "2Gi"}
    assert w.container("web").allocatedResources == {"cpu": "2", "memory": "2Gi"}
    assert w.container("web").restartCount == 0 and w.reason("PodResizeInProgress") is None


def test_less_is_written_to_the_container_first() -> None:
    w = World(pod(one("2", "2Gi")))
    w.resize(5, pod(one("1", "1Gi")))
    w.run(10)
    assert w.order("resize") == ["resize web memory, pod memory, web cpu, pod cpu"]


def test_of_two_who_shrinks_comes_before_who_grows() -> None:
    w = World(pod(one("1", "1Gi"), one("2", "2Gi", name="b")))
    w.resize(5, pod(one("2", "2Gi"), one("1", "1Gi", name="b")))
    w.run(10)
    assert w.order("resize") == ["resize b memory, web memory, b cpu, web cpu"]


def test_more_memory_and_less_cpu_at_once() -> None:
    w = World(pod(one("2", "1Gi")))
    w.resize(5, pod(one("1", "2Gi")))
    w.run(10)
    assert w.order("resize") == ["resize pod memory, web memory, web cpu, pod cpu"]


def test_a_sidecar_too() -> None:
    side = "initContainers: [{name: side, restartPolicy: Always, resources: {limits: {cpu: CPU, memory: 1Gi}}}]"
    w = World(pod(one("1", "1Gi"), more=side.replace("CPU", "1")))
    w.resize(5, pod(one("1", "1Gi"), more=side.replace("CPU", "2")))
    w.run(10)
    assert w.order("resize") == ["resize pod cpu, side cpu"] and w.when("run side") == [0]


def test_the_same_amount_in_other_words_is_no_change() -> None:
    w = World(pod(one("1", "1Gi")))
    w.resize(5, pod(one("1000m", "1024Mi")))
    w.run(10)
    assert w.order("allocate", "resize") == []


RESTART = ", resizePolicy: [{resourceName: memory, restartPolicy: RestartContainer}]"


def test_a_container_that_takes_memory_only_from_its_start_is_run_again_at_once() -> None:
    w = World(pod(one("1", "1Gi", RESTART)), programs={"web": [Program(term=2)]})
    w.resize(5, pod(one("1", "2Gi", RESTART)))
    w.at(6, lambda: seen.append((resources(w)["limits"]["memory"], w.reason("PodResizeInProgress"))))
    seen: list[Any] = []
    w.run(20)
    assert seen == [("1Gi", (None, None))]
    assert w.order("resize", "stop", "signal", "exit", "run web") == [
        "run web 0",
        "stop web: its resources have changed, and its resizePolicy asks for a restart",
        "resize pod memory",
        "signal web",
        "exit web 143",
        "run web 1",
    ]
    assert w.when("run web") == [0, 7] and w.container("web").restartCount == 1
    assert resources(w)["limits"]["memory"] == "2Gi" and w.reason("PodResizeInProgress") is None


def test_the_pod_shrinks_only_after_a_container_that_is_run_again_for_it() -> None:
    w = World(pod(one("1", "2Gi", RESTART)), programs={"web": [Program(term=2)]})
    w.resize(5, pod(one("1", "1Gi", RESTART)))
    w.run(20)
    assert w.when("resize pod memory") == w.when("exit web") == [7]


def test_cpu_of_such_a_container_changes_in_place() -> None:
    w = World(pod(one("1", "1Gi", RESTART)))
    w.resize(5, pod(one("2", "1Gi", RESTART)))
    w.run(10)
    assert w.when("run web") == [0] and w.order("resize") == ["resize pod cpu, web cpu"]


def test_on_failure_too_and_who_has_ended_by_himself_stays_so() -> None:
    change = "{name: job, resources: {limits: {cpu: 1, memory: 1Gi}}" + RESTART + "}"
    w = World(
        pod(one("1", "1Gi", RESTART), change, more="restartPolicy: OnFailure"),
        programs={"web": [Program(term_code=0), Program()], "job": [Program(exits=1)]},
    )
    w.resize(5, pod(one("1", "2Gi", RESTART), change.replace("1Gi", "2Gi"), more="restartPolicy: OnFailure"))
    w.run(20)
    assert w.when("run web") == [0, 5] and w.when("run job") == [0]


def test_what_there_is_no_room_for_is_deferred_until_there_is() -> None:
    w = World(pod(one("1", "1Gi")), room=lambda t: ("Deferred", "no room") if t < 20 else None)
    w.resize(5, pod(one("2", "1Gi")))
    w.ask_again(10)
    w.run(15)
    assert w.reason("PodResizePending") == ("Deferred", "no room") and w.reason("PodResizeInProgress") is None
    assert w.container("web").allocatedResources == {"cpu": "1", "memory": "1Gi"} and w.order("resize") == []
    w.ask_again(20)
    w.run(30)
    assert w.when("allocate") == [5, 10, 20] and w.when("resize") == [20] and w.reason("PodResizePending") is None


def test_what_can_never_be_is_told_and_not_asked_again_before_it_is_another() -> None:
    w = World(pod(one("1", "1Gi")), room=lambda t: ("Infeasible", "too much") if t < 50 else None)
    w.resize(5, pod(one("900", "1Gi")))
    w.run(40)
    assert w.reason("PodResizePending") == ("Infeasible", "too much") and w.when("allocate") == [5]
    w.resize(60, pod(one("2", "1Gi")))
    w.run(70)
    assert w.reason("PodResizePending") is None and resources(w)["limits"]["cpu"] == "2"


def test_what_is_taken_back_is_no_longer_pending() -> None:
    w = World(pod(one("1", "1Gi")), room=lambda t: ("Deferred", "no room"))
    w.resize(5, pod(one("2", "1Gi")))
    w.resize(10, pod(one("1", "1Gi")))
    w.run(20)
    assert w.reason("PodResizePending") is None and w.order("resize") == []


def test_memory_is_not_taken_while_it_is_used() -> None:
    w = World(pod(one("1", "2Gi")), used=lambda t: {"web": 3 * GIB // 2} if t < 20 else {})
    w.resize(5, pod(one("1", "1Gi")))
    w.run(6)
    assert w.reason("PodResizeInProgress") == ("Error", "used: web")
    assert resources(w)["limits"]["memory"] == "2Gi"
    assert w.container("web").allocatedResources == {"cpu": "1", "memory": "1Gi"}
    w.run(30)
    assert w.when("resize") == [5, 15, 25] and w.reason("PodResizeInProgress") is None
    assert resources(w)["limits"]["memory"] == "1Gi" and w.when("run web") == [0]


def test_what_could_not_be_written_does_not_wait_a_day_longer_when_the_clock_is_set_back() -> None:
    w = World(pod(one("1", "2Gi")), used=lambda t: {"web": 3 * GIB // 2} if t > 0 else {})
    w.resize(5, pod(one("1", "1Gi")))
    w.run(6).set_clock(-86400)
    w.run(8 - 86400)
    assert w.when("resize") == [5, 6 - 86400] and resources(w)["limits"]["memory"] == "1Gi"


def test_nothing_is_written_of_a_pod_that_is_about_to_end() -> None:
    w = World(pod(one("1", "1Gi")), programs={"web": [Program(term=None)]})
    w.delete(4, 20)
    w.resize(5, pod(one("2", "1Gi")))
    w.run(60)
    assert w.gone and w.order("allocate", "resize") == []


def test_a_crashed_container_comes_back_with_what_was_given_meanwhile() -> None:
    w = World(pod(one("1", "1Gi")), programs={"web": [Program(exits=1, code=1), Program(exits=1, code=1), Program()]})
    w.resize(5, pod(one("2", "1Gi")))
    w.run(30)
    assert w.when("run web") == [0, 1, 12] and w.order("resize") == ["resize pod cpu"]
    assert resources(w)["limits"]["cpu"] == "2"


# --- what is a resize -------------------------------------------------------------------------------------------------

BASE = pod(one("1", "1Gi"), more="initContainers: [{name: i, resources: {limits: {cpu: 1, memory: 1Gi}}}]")
BURST = pod("{name: web, resources: {requests: {cpu: 1}}}")
BURST_OF = "containers: [{name: web, resources: {requests: {cpu: 1, memory: 0}, limits: "


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        (BASE, BASE, False),
        (BASE, BASE.replace("cpu: '1'", "cpu: 2"), True),
        (BASE, BASE.replace("name: i, resources: {limits: {cpu: 1", "name: i, resources: {limits: {cpu: 2"), False),
        (BASE, BASE.replace("{name: web", "{name: web, image: 'i:2'"), False),
        (BURST, pod("{name: web, resources: {requests: {cpu: 2}}}"), True),
        (BURST, pod("{name: web, resources: {requests: {cpu: 2, memory: 1Gi}}}"), True),
        (BURST, pod("{name: web, resources: {requests: {memory: 1Gi}}}"), False),
        (BURST, pod("{name: web, resources: {}}"), False),
        (BURST, pod(one("1", "1Gi")), False),
        (BURST, pod("{name: web, tty: true, resources: {requests: {cpu: 2}}}"), False),
        (BASE, BASE.replace("memory: 1Gi}", "memory: 2Gi, hugepages-2Mi: 4Mi}"), False),
        (BURST_OF + "{memory: 1Gi}}}]", BURST_OF + "{memory: 0}}}]", False),
        (BURST_OF + "{memory: 0}}}]", BURST_OF + "{memory: 1Gi}}}]", True),
    ],
)  # fmt: skip
def test_only_cpu_and_memory_may_differ_and_the_quality_of_service_not(before: str, after: str, wanted: bool) -> None:
    assert is_resize(pod_of(before), pod_of(after)) is wanted


def test_the_node_says_what_it_can_not_give_now_or_ever() -> None:
    node = Allocatable(4000, 8 * GIB)
    now, other = (pod_of(pod(one(cpu, "1Gi"))).spec for cpu in ("1", "2"))
    assert now is not None and other is not None
    others = [Neighbour("default/other", other)]

    def ask(cpu: str, memory: str) -> tuple[str, str] | None:
        wanted = pod_of(pod(one(cpu, memory))).spec
        assert wanted is not None
        return resize_refusal(now, wanted, node, others)

    assert ask("2", "7Gi") is None and ask("500m", "1Gi") is None
    assert ask("2500m", "1Gi") == ("Deferred", "2500m of cpu wanted, 2000m of 4000m left")
    assert ask("1", "7500Mi") == ("Deferred", "7.324 Gi of memory wanted, 7 Gi of 8 Gi left")
    assert ask("5", "1Gi") == ("Infeasible", "5000m of cpu wanted, and this node has 4000m")
    burst = pod_of(pod("{name: web, resources: {requests: {cpu: 1}}}")).spec
    assert burst is not None
    assert resize_refusal(now, burst, node, ()) == (
        "Infeasible", "its quality of service may not change: Guaranteed now, Burstable wanted",
    )  # fmt: skip


def test_resources_of_the_pod_as_a_whole_stay() -> None:
    """An API server that asks for others is told that it does not get them; a file's pod is another one then."""
    before, after = (pod_of(pod("{name: web}", more=f"resources: {{limits: {{cpu: {n}, memory: 1Gi}}}}")) for n in "12")
    assert not is_resize(before, after)
    record = Record(uid="u", file="", pod=before, created=0.0, admitted=True, api=True)
    know_resources(record, [])
    record.pod = after
    wanted = record.desired()
    assert wanted.asked is after and wanted.spec == before.spec
    assert after.spec is not None
    found = resize_refusal(wanted.spec, after.spec, Allocatable(4000, 8 * GIB, 10), [])
    assert found is not None and found[0] == "Infeasible" and "pod as a whole" in found[1]


def test_a_pod_without_resources_as_a_whole_gets_none_while_it_runs() -> None:
    before, after = pod_of(pod(one("1", "1Gi"))), pod_of(pod(one("1", "1Gi"), more="resources: {limits: {cpu: 3}}"))
    assert not is_resize(before, after)
    record = Record(uid="u", file="", pod=before, created=0.0, admitted=True, api=True)
    know_resources(record, [])
    record.pod = after
    assert record.desired().asked is after and record.desired().spec == before.spec


def test_a_limit_of_memory_is_not_taken_away() -> None:
    """0 is none, and neither a pod without any memory."""
    now, none = (pod_of(BURST_OF + f"{{memory: {memory}}}}}}}]").spec for memory in ("1Gi", "0"))
    assert now is not None and none is not None
    told = "container web has a limit of memory, which is not taken away while it runs"
    assert resize_refusal(now, none, Allocatable(4000, 8 * GIB), ()) == ("Infeasible", told)


def test_less_is_given_also_where_there_is_too_little() -> None:
    before, after = (pod_of(pod(one(cpu, "1Gi"))).spec for cpu in ("3", "2"))
    assert before is not None and after is not None
    assert resize_refusal(before, after, Allocatable(1000, GIB), [Neighbour("a/b", before)]) is None


def test_a_record_has_what_was_given_whatever_is_asked() -> None:
    asked = pod_of(pod(one("2", "1Gi")))
    record = Record(uid="u", file="f", pod=asked, created=0.0)
    assert record.desired().pod is asked and record.desired().asked is None
    record.allocated = {"web": pod_of(pod(one("1", "1Gi"))).spec.containers[0].resources}  # type: ignore
    found = record.desired()
    assert found.asked is asked and (found.spec.containers[0].resources.limits or {})["cpu"] == "1"  # type: ignore
    again = msgspec.json.decode(msgspec.json.encode(record), type=Record)
    assert again.desired() == found


def test_what_could_never_be_is_asked_again_by_the_next_agent() -> None:
    """The node may be larger by then. What waits for room is asked by priority, once all are there."""
    for reason, wanted in (("Infeasible", None), ("Deferred", ("Deferred", "no room"))):
        record = Record(uid="u", file="f", pod=pod_of(BASE), created=0.0, admitted=True, pending=(reason, "no room"))
        know_resources(record, [])
        assert record.pending == wanted and set(record.allocated) == {"web"}


def test_an_event_has_a_kubelet_s_words() -> None:
    found = pod_of(pod("{name: c0, resources: {requests: {cpu: 1}}}"))
    assert found.metadata is not None
    found.metadata.generation = 2
    assert summary(found, "no") == (
        '{"containers":[{"name":"c0","resources":{"requests":{"cpu":1}}}],"generation":2,"error":"no"}'
    )


def test_a_policy_is_taken() -> None:
    assert list(unsupported(pod_of(pod(one("1", "1Gi", RESTART))))) == []
