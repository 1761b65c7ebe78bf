"""Deployments on a fake clock: how many pods of each template, and how many are available, at every moment."""

from __future__ import annotations

from typing import Any

import pytest

from pyrun.kube.objects.apps import Deployment
from pyrun.kube.validate.objects import read_object
from pyrun.node.deployments.plan import Decision, Replica, bounds, plan_deployment, template_hash
from pyrun.node.supported import unsupported


def value(image: str = "i:1", template: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    pod = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": image}], **(template or {})},
    }
    spec = {"selector": {"matchLabels": {"app": "web"}}, "template": pod, **spec}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}


def deployment(image: str = "i:1", **spec: Any) -> Deployment:
    found, faults = read_object(value(image, **spec))
    assert isinstance(found, Deployment), faults
    return found


class World:
    """Pods get ready after `ready` seconds, unless their image is broken, and end after `ending`."""

    def __init__(self, wanted: Deployment, ready: float = 2, ending: float = 3, broken: str = "") -> None:
        self.wanted, self._ready, self._ending, self._broken = wanted, ready, ending, broken
        self.now = 0.0
        self.pods: dict[str, Replica] = {}
        self._gone: dict[str, float] = {}
        self.most, self.fewest, self.together = 0, 99, False
        self._images: dict[str, str] = {}
        self._count = 0

    def run(self, seconds: float) -> World:
        last = self.now + seconds
        while self.now < last:
            self._step()
            self.now += 0.5
        return self

    def decision(self) -> Decision:
        return plan_deployment(self.wanted, list(self.pods.values()), self.now)

    def _step(self) -> None:
        for name, pod in list(self.pods.items()):
            if pod.deleted and self._gone[name] <= self.now:
                del self.pods[name]
            elif self._images[name] != self._broken and pod.created + self._ready <= self.now and not pod.ready_since:
                self.pods[name] = pod._replace(ready_since=self.now)
        found = self.decision()
        for name in found.end:
            self.pods[name] = self.pods[name]._replace(deleted=True)
            self._gone[name] = self.now + self._ending
        for _ in range(found.begin):
            self._count += 1
            name = f"p{self._count}"
            self.pods[name] = Replica(name, template_hash(self.wanted.spec.template), self.now)
            self._images[name] = self.wanted.spec.template.spec.containers[0].image or ""  # type: ignore[union-attr]
        alive = self.alive
        self.most = max(self.most, len(alive))
        self.fewest = min(self.fewest, sum(pod.ready_since is not None for pod in alive))
        self.together |= len({pod.hash for pod in self.pods.values()}) > 1

    @property
    def alive(self) -> list[Replica]:
        return [pod for pod in self.pods.values() if not pod.deleted]

    def counts(self) -> list[int]:
        """Of each template, in the order in which they came."""
        hashes = list(dict.fromkeys(pod.hash for pod in self.alive))
        return [sum(pod.hash == hash for pod in self.alive) for hash in hashes]

    def roll(self, wanted: Deployment, seconds: float = 60) -> World:
        self.wanted, self.most, self.fewest, self.together = wanted, 0, 99, False
        return self.run(seconds)


def rolling(surge: Any, missing: Any) -> dict[str, Any]:
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": missing}}


@pytest.mark.parametrize(
    ("replicas", "surge", "missing", "found"),
    [(4, "25%", "25%", (1, 1)), (10, "25%", "25%", (3, 2)), (1, "25%", "25%", (1, 0)), (3, 0, "10%", (0, 1)),
     (3, "100%", 0, (3, 0)), (2, 0, 5, (0, 2))],
)  # fmt: skip
def test_bounds(replicas: int, surge: Any, missing: Any, found: tuple[int, int]) -> None:
    assert bounds(deployment(replicas=replicas, strategy=rolling(surge, missing)), replicas) == found


def test_replicas_come_and_a_lost_one_is_replaced() -> None:
    w = World(deployment(replicas=3)).run(4)
    assert w.counts() == [3]
    status = w.decision().status
    assert (status.replicas, status.updatedReplicas, status.availableReplicas) == (3, 3, 3)
    assert status.unavailableReplicas == 0
    assert [c.status for c in status.conditions or ()] == ["True", "True"]
    del w.pods["p2"]
    assert w.run(5).counts() == [3]
    w.pods["p1"] = w.pods["p1"]._replace(finished=True)
    assert w.run(9).counts() == [3] and "p1" not in w.pods


def test_fewer_and_none() -> None:
    w = World(deployment(replicas=4)).run(5)
    w.pods["p2"] = w.pods["p2"]._replace(ready_since=None, created=99.0)
    assert w.roll(deployment(replicas=2), 1).counts() == [2]
    assert {pod.name for pod in w.alive} <= {"p1", "p3", "p4"}, "who is not ready goes first"
    assert w.roll(deployment(replicas=0), 9).pods == {}


@pytest.mark.parametrize(("surge", "missing"), [(1, 0), (0, 1), ("50%", "50%"), ("25%", "25%"), ("100%", 0)])
def test_a_rolling_update_keeps_its_bounds(surge: Any, missing: Any) -> None:
    strategy = rolling(surge, missing)
    w = World(deployment(replicas=4, strategy=strategy)).run(10)
    more, fewer = bounds(w.wanted, 4)
    w.roll(deployment("i:2", replicas=4, strategy=strategy))
    assert w.counts() == [4] and {pod.hash for pod in w.alive} == {template_hash(w.wanted.spec.template)}
    assert w.most <= 4 + more and w.fewest >= 4 - fewer


def test_a_template_that_never_gets_ready_stops_the_roll_and_is_rolled_back() -> None:
    w = World(deployment(replicas=4), broken="bad:1").run(10)
    w.roll(deployment("bad:1", replicas=4, progressDeadlineSeconds=30), 29)
    assert w.counts() == [3, 2], "one old pod may be missing, and one be too many"
    assert w.fewest == 3
    assert [c.reason for c in w.run(20).decision().status.conditions or ()][1] == "ProgressDeadlineExceeded"
    w.roll(deployment(replicas=4))
    assert w.counts() == [4] and w.fewest >= 3 and w.most <= 5


def test_min_ready_seconds_are_waited_for() -> None:
    w = World(deployment(replicas=1)).run(5)
    w.wanted = deployment("i:2", replicas=1, minReadySeconds=10)
    for _ in range(20):
        w.run(0.5)
        new = [pod for pod in w.alive if pod.name == "p2"]
        if new and new[0].ready_since is not None and w.now < new[0].ready_since + 10:
            assert "p1" in {pod.name for pod in w.alive}
    found = w.decision()
    assert found.wake is not None and w.now < found.wake <= w.now + 10
    assert [pod.name for pod in w.run(10).alive] == ["p2"]


def test_recreate_has_never_both() -> None:
    strategy = {"type": "Recreate"}
    w = World(deployment(replicas=2, strategy=strategy)).run(5)
    w.roll(deployment("i:2", replicas=2, strategy=strategy))
    assert w.counts() == [2] and not w.together and w.fewest == 0


@pytest.mark.parametrize(
    ("made", "pointer"),
    [
        (value(replicas=-1), "/spec/replicas"),
        (value(selector={"matchLabels": {"app": "other"}}), "/spec/selector/matchLabels"),
        (value(selector={}), "/spec/selector"),
        (value(selector={"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]}), ""),
        (
            value(selector={"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}),
            "/spec/selector/matchExpressions/0",
        ),
        (value(strategy={"type": "Rolling"}), "/spec/strategy/type"),
        (value(strategy={"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}), "/spec/strategy/rollingUpdate"),
        (value(strategy=rolling("25", 0)), "/spec/strategy/rollingUpdate/maxSurge"),
        (value(strategy=rolling(0, "0%")), "/spec/strategy/rollingUpdate/maxUnavailable"),
        (value(strategy=rolling("250%", "101%")), "/spec/strategy/rollingUpdate/maxUnavailable"),
        (value(minReadySeconds=600), "/spec/progressDeadlineSeconds"),
        (value(template={"restartPolicy": "Never"}), "/spec/template/spec/restartPolicy"),
        (value(template={"volumes": [{"name": "A"}]}), "/spec/template/spec/volumes/0/name"),
        (value(paused=True), "/spec/paused"),
        (value(revisionHistoryLimit=3), "/spec/revisionHistoryLimit"),
        (value(template={"overhead": {"cpu": "1m"}}), "/spec/template/spec/overhead"),
    ],
)
def test_what_is_wrong_is_told_by_its_field(made: dict[str, Any], pointer: str) -> None:
    found, faults = read_object(made)
    told = faults or (list(unsupported(found)) if found is not None else [])
    assert [fault.pointer for fault in told] == ([pointer] if pointer else [])
