"""When probes run again: what an actor plans for, and what it only repeats."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from pyrun.kube.objects.containers import Container, Probe, TCPSocketAction
from pyrun.kube.objects.pods import PodSpec
from pyrun.node.agent.actor import Actor
from pyrun.node.agent.probing import Probing as AgentProbing
from pyrun.node.plan.actions import RunProbe
from pyrun.node.plan.observed import ProbeState
from pyrun.node.plan.probes import fold, next_time
from pyrun.node.probes import Result


class Asked:
    """As much of a carrier as probes: when each comes again, None where its result is to be planned for."""

    def __init__(self, *again: float | None) -> None:
        self.again, self.came = list(again), asyncio.Event()

    async def carry_out(self, action: Any) -> float | None:
        found = self.again.pop(0)
        if not self.again:
            self.came.set()
        return found


def probing(carrier: Any) -> Actor:
    actor = Actor.__new__(Actor)
    actor.carrier, actor.busy, actor._woken, actor._tasks = carrier, set(), asyncio.Event(), set()
    carrier.probing = SimpleNamespace(hand_over=lambda action, at, look: False, take_back=lambda: None)
    actor._plans, actor._probes, actor.kept = 1, {}, SimpleNamespace(gone=False)  # type: ignore[assignment]
    return actor


def test_a_probe_that_says_the_same_comes_again_without_a_plan() -> None:
    async def main() -> None:
        carrier = Asked(0.0, 0.0, None)
        actor = probing(carrier)
        actor._begin_at(0.0, RunProbe("id", "c", "readiness"))
        async with asyncio.timeout(60):
            await carrier.came.wait()
            await actor._woken.wait()
        assert not carrier.again and not actor._probes and not actor.busy

    asyncio.run(main())


def test_a_plan_decides_anew_when_a_probe_comes() -> None:
    """One that waits is forgotten, one that runs is planned for when it ends, one that is busy is not begun again."""

    async def main() -> None:
        actor, later = probing(Asked(1e12)), RunProbe("id", "c", "readiness")
        actor._begin_at(1e12, later)
        actor._forget_probes()
        assert not actor._probes
        work = asyncio.create_task(actor._carry_out(later))
        actor.busy.add(later.key)
        actor._begin_at(0.0, later)
        assert not actor._probes
        await asyncio.sleep(0)
        await work
        assert list(actor._probes) == [later.key] and not actor._woken.is_set()
        actor._forget_probes()

        async def planned(action: Any) -> float:
            actor._plans += 1
            return 0.0

        actor.carrier = SimpleNamespace(carry_out=planned)  # type: ignore[assignment]
        await actor._carry_out(later)
        assert not actor._probes and actor._woken.is_set()

    asyncio.run(main())


def test_what_a_plan_looks_at_of_a_probe() -> None:
    probe = Probe(periodSeconds=7)
    first = fold(None, probe, True, 100.0)
    assert next_time(None, first, probe) is None
    assert next_time(first, fold(first, probe, True, 107.0), probe) == 114.0
    bad = fold(first, probe, False, 107.0)
    assert bad.verdict is True and next_time(first, bad, probe) == 114.0
    worse = fold(fold(bad, probe, False, 114.0), probe, False, 121.0)
    assert worse.verdict is False and next_time(bad, worse, probe) is None


class Prober:
    """Takes what is handed over, and keeps what it is to tell."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def watch(self, asked: Any, period: float, first: float, told: Any) -> Any:
        self.told.append(told)
        return SimpleNamespace(take=lambda: (2, 107.0), take_durations=lambda into: into.add(0.2), close=lambda: None)


def test_what_is_told_of_a_probe_that_was_handed_over() -> None:
    """A verdict is the next result; one that was given back is asked once and handed over again; one that it does not
    judge stays here. Told when it is taken back already, it is no error."""
    prober = Prober()
    container = Container(name="c", readinessProbe=Probe(tcpSocket=TCPSocketAction(port=80)))
    desired = SimpleNamespace(spec=PodSpec(containers=[container]))
    record = SimpleNamespace(probes={"id": {"readiness": ProbeState(verdict=True, good=1)}}, desired=lambda: desired)
    kept: Any = SimpleNamespace(record=record, host=SimpleNamespace(prober=prober))
    probing, action, looks = AgentProbing(kept, lambda: "127.0.0.1"), RunProbe("id", "c", "readiness"), []

    def hand_over() -> bool:
        return probing.hand_over(action, 0.0, lambda: looks.append(1))

    assert hand_over()
    prober.told[-1](Result(None, "it has ended"), 0.0)
    assert len(looks) == 1 and not probing._heard and probing.states["id"]["readiness"].good == 3
    assert hand_over()
    prober.told[-1](Result(False, "refused"), 108.0)
    assert probing._heard.pop(action.key) == (108.0, Result(False, "refused"))
    assert hand_over()
    probing.take_back()
    prober.told[-1](Result(None, "late"), 0.0)
    assert hand_over()
    prober.told[-1](None, 0.0)
    assert not hand_over() and len(looks) == 4
    assert sum(probing.durations()["c", "readiness"].counts) == 4, "what was told of each that was handed over"
    probing._heard[action.key] = 1.0, Result(False)
    probing.forget_containers(set())
    assert not probing._heard and not probing._own and not probing.states


def test_how_long_it_took_is_noted_of_a_success_alone() -> None:
    """As a kubelet does it: one that fails in its timeout is not slow."""
    results = [Result(True), Result(False, "refused"), Result(None, "no port")]
    container = Container(name="c", readinessProbe=Probe(tcpSocket=TCPSocketAction(port=80)))
    desired = SimpleNamespace(spec=PodSpec(containers=[container]))
    record = SimpleNamespace(probes={}, desired=lambda: desired)

    async def run(*given: Any) -> Result:
        return results.pop(0)

    host = SimpleNamespace(prober=SimpleNamespace(run=run), cri=SimpleNamespace(pods=SimpleNamespace(containers={})))
    kept: Any = SimpleNamespace(record=record, host=host)
    probing, action = AgentProbing(kept, lambda: "127.0.0.1"), RunProbe("id", "c", "readiness")

    async def main() -> None:
        for _ in range(3):
            await probing.run(action)
        probing._heard[action.key] = 1.0, Result(False, "refused")
        await probing.run(action)

    asyncio.run(main())
    assert sum(probing.durations()["c", "readiness"].counts) == 1 and sum(probing.counts().values()) == 4
