"""What a node is short of, which pod goes for it, and what becomes of that: plans, and a pod on a fake clock."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from pyrun.errors import InvalidArgument
from pyrun.node.admission import tolerates_memory_pressure
from pyrun.node.agent.events import Events
from pyrun.node.agent.evictor import Eviction, Evictor
from pyrun.node.eviction.plan import Candidate, Signal, State, message, plan_pressure, quantity, rank, refuses, table
from pyrun.node.eviction.thresholds import HARD, Threshold, parse_thresholds
from tests.support.node.world import Program, World, pod_of

MIB, GIB = 1 << 20, 1 << 30


def signals(memory: int = 1000, disk: int = 50, pids: int = 90) -> dict[str, Signal]:
    """memory in MiB, the others in percent."""
    return {
        "memory.available": Signal(memory * MIB, 8 * GIB),
        "nodefs.available": Signal(disk * GIB, 100 * GIB),
        "pid.available": Signal(pids, 100),
    }


class Node:
    """One that is looked at again and again."""

    def __init__(self, hard: str = HARD, soft: str = "", grace: str = "", reclaim: str = "") -> None:
        self.thresholds = parse_thresholds([hard], [soft], [grace], [reclaim])
        self.state = State()

    def look(self, now: float, **given: int) -> tuple[list[str], list[str]]:
        """(conditions, signals of what is due)."""
        found = plan_pressure(signals(**given), self.thresholds, self.state, now)
        self.state = found.state
        return sorted(found.conditions), [one.signal for one in found.due]


def test_a_hard_threshold_is_due_at_once() -> None:
    node = Node()
    assert node.look(0, memory=100) == ([], [])
    assert node.look(1, memory=99) == (["MemoryPressure"], ["memory.available"])


def test_a_pressure_outlasts_its_cause_by_the_transition_period() -> None:
    node = Node()
    node.look(0, disk=9)
    assert node.look(10) == (["DiskPressure"], [])
    assert node.look(299) == (["DiskPressure"], [])
    assert node.look(300) == ([], [])


def test_a_soft_threshold_is_due_after_its_grace() -> None:
    node = Node("", "memory.available<500Mi", "memory.available=90")
    assert node.look(0, memory=400) == (["MemoryPressure"], [])
    assert node.look(89, memory=400) == (["MemoryPressure"], [])
    assert node.look(90, memory=400) == (["MemoryPressure"], ["memory.available"])
    assert node.look(91, memory=500)[1] == []
    assert node.look(92, memory=400)[1] == []  # the grace begins anew


def test_the_minimum_reclaim_has_to_be_there_too() -> None:
    node = Node("nodefs.available<10%", reclaim="nodefs.available=5Gi")
    assert node.look(0, disk=12)[1] == []
    assert node.look(1, disk=9)[1] == ["nodefs.available"]
    assert node.look(2, disk=14)[1] == ["nodefs.available"]
    assert node.look(3, disk=15)[1] == []
    assert node.look(4, disk=14)[1] == []


def test_memory_comes_first() -> None:
    node = Node("pid.available<10%,nodefs.available<10%,memory.available<1Gi")
    assert node.look(0, memory=1, disk=1, pids=1) == (
        ["DiskPressure", "MemoryPressure", "PIDPressure"],
        ["memory.available", "nodefs.available", "pid.available"],
    )


def test_what_could_not_be_read_is_no_pressure() -> None:
    assert plan_pressure({}, parse_thresholds([HARD]), State(), 0.0).due == ()


@pytest.mark.parametrize(
    ("hard", "soft", "told"),
    [
        ("memory.free<1Mi", "", "is no SIGNAL<VALUE"),
        ("memory.available=1Mi", "", "is no SIGNAL<VALUE"),
        ("memory.available<much", "", "no quantity"),
        ("memory.available<101%", "", "no quantity"),
        ("memory.available<-1", "", "no quantity"),
        ("", "memory.available<1Mi", "has no --eviction-soft-grace-period"),
    ],
)
def test_thresholds_that_are_none(hard: str, soft: str, told: str) -> None:
    with pytest.raises(InvalidArgument, match=told):
        parse_thresholds([hard], [soft])


# --- who goes ---------------------------------------------------------------------------------------------------------


def pod(name: str, used: int | None = 0, requested: int = 0, priority: int = 0, **more: object) -> Candidate:
    usage = {} if used is None else {"memory": used, "inodes": used, "pids": used}
    return Candidate(name, usage, {"memory": requested}, priority, **more)  # type: ignore[arg-type]


def names(resource: str, *pods: Candidate) -> list[str]:
    return [one.name for one in rank(pods, resource)]


@pytest.mark.parametrize(
    ("resource", "pods", "order"),
    [
        ("memory", [pod("in", 10, 20), pod("over", 5, 1)], ["over", "in"]),
        ("memory", [pod("much", 50), pod("most", 90), pod("some", 10)], ["most", "much", "some"]),
        ("memory", [pod("low", 5, 0, -1), pod("high", 90, 0, 5)], ["low", "high"]),
        ("memory", [pod("in", 10, 20, -100), pod("over", 30, 20, 100)], ["over", "in"]),
        ("memory", [pod("known", 99), pod("unknown", None)], ["unknown", "known"]),
        ("memory", [pod("system", 99, critical=True), pod("own", 1)], ["own"]),
        ("memory", [pod("half", 60, 50), pod("bit", 105, 100)], ["half", "bit"]),
        ("inodes", [pod("few", 1, priority=0), pod("many", 9, priority=0)], ["many", "few"]),
        ("pids", [pod("many", 9, priority=1), pod("few", 1, priority=0)], ["few", "many"]),
    ],
)
def test_ranks(resource: str, pods: list[Candidate], order: list[str]) -> None:
    assert names(resource, *pods) == order
    assert names(resource, *reversed(pods)) == order


def test_the_words_are_a_kubelets() -> None:
    (threshold,) = parse_thresholds(["memory.available<100Mi"])
    rows = (("web", {"memory": 30 * MIB}, {"memory": 10 * MIB}), ("side", {"memory": MIB}, {"memory": 2 * MIB}))
    found = message("memory", threshold, Signal(50 * 1024, GIB), pod("p", containers=rows))
    assert found == (
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Ki. "
        "Container web was using 30Mi, request is 10Mi, has larger consumption of memory. "
    )
    assert table([pod("a", 2048, 1024, 3), pod("b", None)], "memory") == (
        "1. a priority 3, uses 2Ki of 1Ki requested; 2. b priority 0, uses unknown of 0 requested"
    )
    assert [quantity(n) for n in (0, 1023, 1024, 1536, MIB, 3 * GIB)] == ["0", "1023", "1Ki", "1536", "1Mi", "3Gi"]


def test_a_percentage_is_told_as_a_quantity() -> None:
    (threshold,) = parse_thresholds(["nodefs.available<10%"])
    assert isinstance(threshold, Threshold)
    found = message("ephemeral-storage", threshold, Signal(GIB, 100 * GIB), pod("p"))
    assert "Threshold quantity: 10Gi, available: 1Gi. " in found


@pytest.mark.parametrize(
    ("conditions", "qos", "critical", "tolerates", "taken"),
    [
        ([], "BestEffort", False, False, True),
        (["MemoryPressure"], "BestEffort", False, False, False),
        (["MemoryPressure"], "BestEffort", False, True, True),
        (["MemoryPressure"], "Burstable", False, False, True),
        (["DiskPressure"], "Guaranteed", False, True, False),
        (["DiskPressure"], "BestEffort", True, False, True),
        (["PIDPressure"], "Burstable", False, False, False),
        (["DiskPressure", "MemoryPressure"], "Guaranteed", False, True, False),
    ],
)
def test_who_is_taken_under_pressure(
    conditions: list[str], qos: str, critical: bool, tolerates: bool, taken: bool
) -> None:
    found = refuses(conditions, qos=qos, critical=critical, tolerates=tolerates)
    assert (found is None) == taken
    assert taken or found == ("Evicted", f"The node had condition: [{' '.join(sorted(conditions))}]. ")


@pytest.mark.parametrize(
    ("toleration", "there"),
    [
        ("{key: node.kubernetes.io/memory-pressure, operator: Exists}", True),
        ("{key: node.kubernetes.io/memory-pressure, operator: Exists, effect: NoSchedule}", True),
        ("{key: node.kubernetes.io/memory-pressure, operator: Exists, effect: NoExecute}", False),
        ("{operator: Exists}", True),
        ("{key: other, operator: Exists}", False),
    ],
)
def test_a_toleration_of_memory_pressure(toleration: str, there: bool) -> None:
    spec = pod_of(f"containers: [{{name: c}}]\ntolerations: [{toleration}]").spec
    assert spec is not None and tolerates_memory_pressure(spec) == there


# --- what becomes of it -----------------------------------------------------------------------------------------------


def test_an_evicted_pod_ends_within_the_grace_of_its_eviction_and_has_failed() -> None:
    w = World("terminationGracePeriodSeconds: 60\ncontainers: [{name: web}]", programs={"web": [Program(term=None)]})
    w.evict(5, 1.0)
    w.run(60)
    assert (w.when("signal web"), w.when("kill web")) == ([5], [7])  # two seconds after the signal at least
    assert w.phases[-1] == (7, "Failed") and w.status.reason == "Evicted"
    assert w.condition("DisruptionTarget") == "True" and w.condition("Ready") == "False"
    assert w.when("run web") == [0] and w.when("stop sandbox") == [7]


class Pods:
    """Those of a node, by name, as Evictor wants them. another: comes while they are looked at."""

    def __init__(self, *names: str) -> None:
        self.evicted: list[str] = []
        self.found = {name: self._made(name) for name in names}

    def _made(self, name: str) -> Any:
        cleared = asyncio.Event()

        def evict(why: str, grace: float) -> None:
            self.evicted.append(name)
            cleared.set()

        kept = SimpleNamespace(sandboxes=lambda: self.found.setdefault("another", self.found[name]) and [])
        return SimpleNamespace(name=name, may_go=True, kept=kept, cleared=cleared, evict=evict, grace=1.0)


class Looking(Evictor):
    def _candidate(self, actor: Any, sandboxes: Any) -> Candidate:
        return Candidate(actor.name, {"memory": 1})


def evictor(pods: Pods, read: Any) -> Looking:
    heard = asyncio.Event()
    heard.set()
    garbage: Any = SimpleNamespace(heard=heard)
    return Looking(Eviction(), read, pods.found.values, garbage, Events(), lambda: None, spares=False)


def test_pods_come_while_they_are_ranked() -> None:
    async def look() -> list[str]:
        pods = Pods("a", "b")
        assert await evictor(pods, lambda: signals(memory=1)).look()
        return pods.evicted

    assert asyncio.run(look()) == ["a"]


def test_what_goes_wrong_once_does_not_end_eviction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyrun.node.agent.evictor.PERIOD_S", 0.01)
    asked: list[int] = []

    def read() -> dict[str, Signal]:
        asked.append(1)
        if len(asked) == 1:
            raise ValueError("a line of /proc that nobody knows")
        return signals(memory=1 if len(asked) == 2 else 1000)

    async def look() -> list[str]:
        pods = Pods("a", "b")
        task = asyncio.create_task(evictor(pods, read).for_ever())
        async with asyncio.timeout(60):
            while not pods.evicted:
                await asyncio.sleep(0.01)
        task.cancel()
        return pods.evicted

    assert asyncio.run(look()) == ["a"]


def test_limits_are_told_with_what_there_is() -> None:
    """Of a signal that can't be read, that it can't; and whether each is met."""
    there = evictor(Pods(), lambda: signals(memory=1))

    async def ask() -> list[dict[str, object]]:
        await there.look()
        return await there.limits()

    found = {one["signal"]: one for one in asyncio.run(ask())}
    assert found["memory.available"]["limit"] == 100 << 20 and found["memory.available"]["met"] is True
    assert found["memory.available"]["grace"] is None and isinstance(found["memory.available"]["available"], int)
