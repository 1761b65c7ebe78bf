"""Quality of service, and the numbers of the cgroup tree: a kubelet's, from its own formulas."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyrun.kube.objects.pods import PodSpec
from pyrun.node import qos
from pyrun.node.agent.pod_cgroup import make_cgroup
from pyrun.node.plan.observed import CgroupLimits
from tests.support.node.world import pod_of


def spec(text: str) -> PodSpec:
    found = pod_of(text).spec
    assert found is not None
    return found


def one(resources: str) -> PodSpec:
    return spec(f"containers: [{{name: a, resources: {resources}}}]")


@pytest.mark.parametrize(
    ("resources", "wanted"),
    [
        ("{}", "BestEffort"), ("{requests: {example.com/gpu: 1}, limits: {example.com/gpu: 1}}", "BestEffort"),
        ("{requests: {cpu: 1}}", "Burstable"), ("{limits: {cpu: 1}}", "Burstable"),
        ("{limits: {cpu: 1, memory: 1Gi}}", "Guaranteed"), ("{requests: {cpu: 0}}", "BestEffort"),
        ("{limits: {cpu: 1, memory: 1Gi}, requests: {cpu: 500m, memory: 1Gi}}", "Burstable"),
        ("{limits: {cpu: 1, memory: 1Gi}, requests: {cpu: 1000m, memory: 1024Mi}}", "Guaranteed"),
    ],
)  # fmt: skip
def test_class_of_one_container(resources: str, wanted: str) -> None:
    assert qos.qos_class(one(resources)) == wanted


def test_class_of_more_is_that_of_the_weakest() -> None:
    good = "resources: {limits: {cpu: 1, memory: 1Gi}}"
    assert qos.qos_class(spec(f"containers: [{{name: a, {good}}}, {{name: b, {good}}}]")) == "Guaranteed"
    assert qos.qos_class(spec(f"containers: [{{name: a, {good}}}, {{name: b}}]")) == "Burstable"
    assert qos.qos_class(spec(f"initContainers: [{{name: i}}]\ncontainers: [{{name: a, {good}}}]")) == "Burstable"
    assert qos.qos_class(spec("resources: {limits: {cpu: 1, memory: 1Gi}}\ncontainers: [{name: a}]")) == "Guaranteed"


@pytest.mark.parametrize(
    ("thousandths", "shares"), [(0, 2), (1, 2), (100, 102), (1000, 1024), (64_000, 65_536), (1_000_000, 262_144)]
)
def test_shares(thousandths: int, shares: int) -> None:
    assert qos.shares(thousandths) == shares


@pytest.mark.parametrize(("thousandths", "quota"), [(0, 0), (1, 1000), (10, 1000), (500, 50_000), (2000, 200_000)])
def test_quota(thousandths: int, quota: int) -> None:
    assert qos.quota(thousandths) == quota


def test_a_pod_needs_the_sum_or_its_largest_init() -> None:
    found = spec(
        """
initContainers:
- {name: i, resources: {requests: {cpu: 2}}}
- {name: s, restartPolicy: Always, resources: {requests: {cpu: 500m, memory: 10Mi}}}
- {name: j, resources: {requests: {cpu: 1}}}
containers:
- {name: a, resources: {requests: {cpu: 100m, memory: 1Mi}}}
- {name: b, resources: {requests: {cpu: 100m}}}
overhead: {cpu: 10m}
"""
    )
    assert qos.pod_requests(found) == {"cpu": 2010, "memory": 11 << 20}


def test_a_limit_only_where_all_have_one() -> None:
    both = "containers: [{name: a, resources: {limits: {memory: 1Mi}}}, {name: b, resources: {limits: {memory: 2Mi}}}]"
    assert qos.pod_limits(spec(both)).memory == 3 << 20
    assert qos.pod_limits(spec("containers: [{name: a, resources: {limits: {memory: 1Mi}}}, {name: b}]")).memory is None
    zero = spec(
        "containers: [{name: a, resources: {limits: {cpu: 1, memory: 0}}}, {name: b, resources: {limits: {cpu: 0}}}]"
    )
    assert qos.pod_limits(zero).memory is None and qos.pod_limits(zero).quota == 0  # 0 is no limit
    assert qos.container_limits(zero.containers[0]).memory is None


def test_a_pod_as_a_whole() -> None:
    """KEP-2837: its own words count first; who has no limit has the pod's, and what nobody requests is all's evenly."""
    found = spec(
        """
resources: {limits: {cpu: 2, memory: 4Gi}, requests: {memory: 3Gi}}
initContainers: [{name: s, restartPolicy: Always}]
containers:
- {name: a, resources: {requests: {cpu: 100m, memory: 1Gi}, limits: {memory: 2Gi}}}
- {name: b}
- {name: c, resources: {limits: {cpu: 500m}}}
"""
    )
    assert found.resources is not None and found.resources.requests == {"cpu": "600m", "memory": "3Gi"}
    assert qos.qos_class(found) == "Burstable" and qos.pod_requests(found) == {"cpu": 600, "memory": 3 * GIB}
    assert qos.pod_limits(found) == CgroupLimits(614, 200_000, 4 * GIB)
    limits = [qos.container_limits(c, found) for c in found.containers]
    assert limits == [
        CgroupLimits(102, 200_000, 2 * GIB),
        CgroupLimits(2048, 200_000, 4 * GIB),
        CgroupLimits(512, 50_000, 4 * GIB),
    ]
    scores = [qos.oom_score_adj(c, found, 8 * GIB) for c in found.containers]
    assert scores == [813, 938, 938], "half a GiB more for each of four: 1.5, 0.5 and 0.5 of 8 GiB"
    whole = "containers: [{name: a, resources: {requests: {cpu: 1m}}}]\nresources: {limits: {cpu: 1, memory: 1Gi}}"
    assert qos.qos_class(spec(whole)) == "Burstable", "it requests what its containers do"
    assert qos.qos_class(spec(whole.replace(", resources: {requests: {cpu: 1m}}", ""))) == "Guaranteed"
    assert qos.qos_class(spec("containers: [{name: a, resources: {requests: {cpu: 1}}}]\nresources: {}")) == "Burstable"


def test_names_of_cgroups_are_the_kubelets() -> None:
    assert qos.cgroup_path("u-1", "Guaranteed") == "/kubepods/podu-1"
    assert qos.cgroup_path("u-1", "BestEffort") == "/kubepods/besteffort/podu-1"
    assert qos.cgroup_slice("u-1", "Burstable") == "kubepods-burstable-podu_1.slice"
    assert qos.cgroup_slice("u-1", "Guaranteed") == "kubepods-podu_1.slice"


GIB = 1 << 30


@pytest.mark.parametrize(
    ("resources", "score"),
    [
        ("{}", 1000), ("{limits: {cpu: 1, memory: 1Gi}}", -997), ("{requests: {memory: 1Gi}}", 750),
        ("{requests: {memory: 4Gi}}", 3), ("{requests: {cpu: 1}}", 999), ("{requests: {memory: 1Mi}}", 999),
    ],
)  # fmt: skip
def test_oom_score(resources: str, score: int) -> None:
    found = one(resources)
    assert qos.oom_score_adj(found.containers[0], found, 4 * GIB) == score


def test_a_sidecar_is_killed_no_sooner_than_the_app() -> None:
    found = spec(
        "initContainers: [{name: s, restartPolicy: Always}]\n"
        "containers: [{name: a, resources: {requests: {memory: 2Gi}}}]"
    )
    assert found.initContainers is not None
    assert qos.oom_score_adj(found.initContainers[0], found, 4 * GIB) == 500


@pytest.mark.parametrize("there", [True, False])
def test_a_pod_has_no_swap(tmp_path: Path, there: bool) -> None:
    """Nor have its containers, whatever they have of memory. A kernel may have no swap, and no such file."""
    cgroup = tmp_path / "kubepods/besteffort/poduid"
    cgroup.mkdir(parents=True)
    if there:
        (cgroup / "memory.swap.max").touch()
    assert make_cgroup(str(tmp_path), "/kubepods/besteffort/poduid", CgroupLimits(2, 0, None)) == []
    assert not there or (cgroup / "memory.swap.max").read_text() == "0"
