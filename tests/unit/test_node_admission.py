"""Whether a node takes a pod, by a kubelet's reasons."""

from __future__ import annotations

import pytest

from pyrun.kube.objects.pods import PodSpec
from pyrun.node.admission import Allocatable, Neighbour, refusal
from tests.support.node.world import pod_of

NODE = Allocatable(cpu=1000, memory=1 << 30, pods=3, sysctls=("net.core.*",))


def spec(text: str) -> PodSpec:
    found = pod_of(text).spec
    assert found is not None
    return found


def asks(**amounts: str) -> PodSpec:
    words = ", ".join(f"{name}: {amount}" for name, amount in amounts.items())
    return spec(f"containers: [{{name: a, resources: {{requests: {{{words}}}}}}}]")


def reason(wanted: PodSpec, *others: PodSpec) -> str | None:
    found = refusal(wanted, NODE, [Neighbour(f"default/p{i}", other) for i, other in enumerate(others)])
    return found[0] if found else None


def test_what_fits_is_taken() -> None:
    assert reason(asks(cpu="1", memory="1Gi")) is None
    assert reason(asks(cpu="500m"), asks(cpu="500m")) is None


def test_what_does_not_fit_is_refused() -> None:
    assert reason(asks(cpu="1001m")) == "OutOfcpu"
    assert reason(asks(cpu="501m"), asks(cpu="500m")) == "OutOfcpu"
    assert reason(asks(memory="1Gi"), asks(memory="1")) == "OutOfmemory"


def test_more_pods_than_the_node_has_room_for() -> None:
    assert reason(asks(), asks(), asks()) is None
    assert reason(asks(), asks(), asks(), asks()) == "OutOfpods"


@pytest.mark.parametrize(
    ("name", "taken"),
    [("net.ipv4.tcp_syncookies", True), ("net/ipv4/tcp_syncookies", True), ("net.core.somaxconn", True),
     ("kernel.msgmax", False)],
)  # fmt: skip
def test_sysctls(name: str, taken: bool) -> None:
    wanted = spec(f"securityContext: {{sysctls: [{{name: {name}, value: '1'}}]}}\ncontainers: [{{name: a}}]")
    assert reason(wanted) == (None if taken else "SysctlForbidden")


def port(text: str) -> PodSpec:
    return spec(f"containers: [{{name: a, ports: [{{containerPort: 1, {text}}}]}}]")


@pytest.mark.parametrize(
    ("a", "b", "clash"),
    [
        ("hostPort: 80", "hostPort: 80", True), ("hostPort: 80", "hostPort: 81", False),
        ("hostPort: 80", "hostPort: 80, protocol: UDP", False),
        ("hostPort: 80", "hostPort: 80, hostIP: 127.0.0.1", True),
        ("hostPort: 80, hostIP: 127.0.0.2", "hostPort: 80, hostIP: 127.0.0.1", False),
    ],
)  # fmt: skip
def test_host_ports(a: str, b: str, clash: bool) -> None:
    found = refusal(port(a), NODE, [Neighbour("default/other", port(b))])
    assert (found is not None) == clash
    if found:
        assert found == ("NodePorts", "host port 80/TCP is taken by default/other")


def test_a_pod_on_the_hosts_network_takes_its_ports() -> None:
    wanted = spec("hostNetwork: true\ncontainers: [{name: a, ports: [{containerPort: 80}]}]")
    assert reason(wanted, port("hostPort: 80")) == "NodePorts"
