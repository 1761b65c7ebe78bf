"""What is said of pods' use, out of what a runtime says: Prometheus' text, and the kubelet's summary."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pyrun import cri_api as v1
from pyrun.cli.commands.metrics import parse_place
from pyrun.errors import InvalidArgument
from pyrun.metrics.families import plan_cadvisor, plan_resource
from pyrun.metrics.node import SECOND, NodeUsage, collect_node, parse_ways
from pyrun.metrics.readings import Readings
from pyrun.metrics.slices import MOST, collect_slices
from pyrun.metrics.summary import plan_rate, plan_summary, plan_traffic
from pyrun.metrics.text import COUNTER, GAUGE, Family, render

NODE = NodeUsage(
    time=100 * SECOND,
    started=10 * SECOND,
    cpu=7_500_000_000,
    used=1000,
    working=800,
    available=5000,
    rss=300,
    swap=4,
    page_faults=11,
    major_page_faults=2,
)
LABELS = ("container", "id", "image", "name", "namespace", "pod")
ABOUT = {"namespace": "shop", "name": "cart", "uid": "uid-1"}
OF_CONTAINER = ("app", "/c", "busybox", "1234", "shop", "cart")
OF_POD = ("", "/p", "", "p", "shop", "cart")


def number(value: int) -> Any:
    return v1.UInt64Value(value=value)


def metric(name: str, value: int, labels: tuple[str, ...], kind: int = v1.GAUGE) -> Any:
    return v1.Metric(name=name, metric_type=kind, label_values=labels, value=number(value))


def readings(*, cpu_ns: int = 2_345_678_901, descriptors: tuple[Any, ...] | None = None) -> Readings:
    described = descriptors or (
        v1.MetricDescriptor(name="container_cpu_usage_seconds_total", help="CPU", label_keys=[*LABELS, "cpu"]),
        v1.MetricDescriptor(name="container_start_time_seconds", help="when\nit was", label_keys=LABELS),
        v1.MetricDescriptor(name="container_memory_rss", help="a \\ b", label_keys=LABELS),
    )
    usage = {"usage_core_nano_seconds": number(cpu_ns), "usage_nano_cores": number(5)}
    stats = v1.ContainerStats(
        attributes=v1.ContainerAttributes(id="1234", metadata=v1.ContainerMetadata(name="app")),
        cpu=v1.CpuUsage(timestamp=99 * SECOND, **usage),
        memory=v1.MemoryUsage(timestamp=99 * SECOND, working_set_bytes=number(77)),
        writable_layer=v1.FilesystemUsage(timestamp=98 * SECOND, used_bytes=number(4096)),
    )
    pod = v1.PodSandboxStats(
        attributes=v1.PodSandboxAttributes(id="p", metadata=v1.PodSandboxMetadata(**ABOUT)),
        linux=v1.LinuxPodSandboxStats(
            containers=[stats],
            network=v1.NetworkUsage(
                timestamp=99 * SECOND,
                default_interface=v1.NetworkInterfaceUsage(name="eth0", rx_bytes=number(1), tx_bytes=number(2)),
            ),
        ),
    )
    of_container = [
        metric("container_cpu_usage_seconds_total", 2, (*OF_CONTAINER, "total"), v1.COUNTER),
        metric("container_start_time_seconds", 50, OF_CONTAINER),
        metric("container_memory_rss", 33, OF_CONTAINER),
        metric("container_memory_rss", 33, ("too", "few")),
        metric("not_described", 1, OF_CONTAINER),
    ]
    metrics = v1.PodSandboxMetrics(
        pod_sandbox_id="p",
        metrics=[metric("container_start_time_seconds", 49, OF_POD)],
        container_metrics=[v1.ContainerMetrics(container_id="1234", metrics=of_container)],
    )
    return Readings(NODE, described, (metrics,), (pod,))


def test_the_text_of_a_family() -> None:
    family = Family("a_total", 'what\n"it" \\ is', COUNTER, ("x", "y"), {('"q"\\\n', "é"): 1, ("", ""): 0.5})
    assert render([family, Family("empty", "", GAUGE)]) == (
        '# HELP a_total what\\n"it" \\\\ is\n# TYPE a_total counter\n'
        'a_total{x="\\"q\\"\\\\\\n",y="é"} 1\na_total{x="",y=""} 0.5\n'
    )


def test_names_that_prometheus_does_not_take_are_left_out() -> None:
    for name, labels in (("a b", ()), ("1a", ()), ("a\n", ()), ("a", ("b-c",)), ("a", ("__b",)), ("a", ("b\n",))):
        assert not Family(name, "", GAUGE, labels).is_valid(), (name, labels)
    faulty = v1.MetricDescriptor(name="a{}\nb", label_keys=LABELS)
    assert plan_cadvisor(readings(descriptors=(faulty,))) == []


def test_cadvisor_has_what_the_runtime_describes_and_the_finer_seconds() -> None:
    found = {family.name: family for family in plan_cadvisor(readings())}
    assert found["container_cpu_usage_seconds_total"].values == {(*OF_CONTAINER, "total"): 2.345678901}
    assert found["container_cpu_usage_seconds_total"].type == COUNTER
    assert found["container_memory_rss"].values == {OF_CONTAINER: 33} and found["container_memory_rss"].type == GAUGE
    assert "not_described" not in found
    older = plan_cadvisor(readings(cpu_ns=1_999_999_999))
    assert next(one for one in older if one.name == "container_cpu_usage_seconds_total").values == {
        (*OF_CONTAINER, "total"): 2
    }


def test_cadvisor_has_what_lies_above_pods(tmp_path: Path) -> None:
    """As a kubelet's has, by either driver of cgroups: not pods, of which the runtime tells, nor what is no slice."""
    above = ["/", "/kubepods", "/kubepods/burstable", "/kubepods.slice", "/kubepods.slice/kubepods-besteffort.slice"]
    above += ["/system.slice", "/system.slice/system-getty.slice"]
    others = [
        "/kubepods/pod1",
        "/kubepods/burstable/pod2",
        "/kubepods.slice/kubepods-pod3.slice",
        "/system.slice/a.service",
    ]
    others += ["/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod4.slice", "/init.scope"]
    for number, id in enumerate((*above, *others)):
        directory = tmp_path / id.lstrip("/")
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "cpu.stat").write_text(f"usage_usec {number}500000\nuser_usec 0\nsystem_usec 0\n")
        (directory / "memory.current").write_text("5000\n")
        (directory / "memory.stat").write_text("inactive_file 4000\nanon 7\n")
    slices = collect_slices(str(tmp_path))
    assert sorted(one.id for one in slices) == sorted(above)
    names = ("container_cpu_usage_seconds_total", "container_memory_working_set_bytes", "container_memory_rss")
    descriptors = tuple(
        v1.MetricDescriptor(name=name, label_keys=[*LABELS, *(["cpu"] if "cpu" in name else [])]) for name in names
    )
    cpu, working, rss = plan_cadvisor(readings(descriptors=descriptors), slices)
    assert (cpu.type, working.type, rss.type) == ("counter", "gauge", "gauge")  # of which no pod has a sample, too
    of = {id: ("", id, "", "", "", "") for id in above}
    assert cpu.values[*of["/kubepods/burstable"], "total"] == 2.5 and cpu.values[*OF_CONTAINER, "total"] == 2.345678901
    assert working.values[of["/system.slice"]] == 1000 and rss.values[of["/system.slice"]] == 7
    # The root's cgroup has only some files: the node's figures are those of /proc.
    assert cpu.values[*of["/"], "total"] == 7.5 and working.values[of["/"]] == 800 and rss.values[of["/"]] == 300
    other = (v1.MetricDescriptor(name="container_memory_usage_bytes", label_keys=["pod", "id"]),)
    assert plan_cadvisor(readings(descriptors=other), slices)[0].values == {}


def test_no_more_slices_than_a_page_can_have(tmp_path: Path) -> None:
    (tmp_path / "cpu.stat").write_text("usage_usec 1\n")
    for number in range(MOST + 5):
        (tmp_path / f"{number}.slice").mkdir()
        (tmp_path / f"{number}.slice" / "cpu.stat").write_text("usage_usec 1\n")
    assert len(collect_slices(str(tmp_path))) == MOST
    assert collect_slices(str(tmp_path / "nothing")) == ()


def test_resource() -> None:
    found = {family.name: family.values for family in plan_resource(readings())}
    of_container = ("app", "shop", "cart")
    assert found["container_cpu_usage_seconds_total"] == {of_container: 2.345678901}
    assert found["container_memory_working_set_bytes"] == {of_container: 77}
    assert found["container_start_time_seconds"] == {of_container: 50, ("", "shop", "cart"): 49}
    assert found["node_cpu_usage_seconds_total"] == {(): 7.5} and found["node_memory_working_set_bytes"] == {(): 800}
    assert found["pod_cpu_usage_seconds_total"] == {} and found["container_swap_usage_bytes"] == {}


def test_summary() -> None:
    told = plan_summary("n1", readings(), 123)
    assert told["node"]["nodeName"] == "n1" and told["node"]["cpu"]["usageNanoCores"] == 123
    assert told["node"]["startTime"] == "1970-01-01T00:00:10Z" and told["node"]["memory"]["workingSetBytes"] == 800
    [pod] = told["pods"]
    assert pod["podRef"] == {"name": "cart", "namespace": "shop", "uid": "uid-1"}
    assert pod["network"]["name"] == "eth0" and pod["network"]["interfaces"] == [
        {"name": "eth0", "rxBytes": 1, "txBytes": 2}
    ]
    assert pod["startTime"] == "1970-01-01T00:00:49Z" and "cpu" not in pod
    assert pod["containers"] == [
        {
            "name": "app",
            "startTime": "1970-01-01T00:00:50Z",
            "cpu": {"time": "1970-01-01T00:01:39Z", "usageNanoCores": 5, "usageCoreNanoSeconds": 2345678901},
            "memory": {"time": "1970-01-01T00:01:39Z", "workingSetBytes": 77},
            "rootfs": {"time": "1970-01-01T00:01:38Z", "usedBytes": 4096},
        }
    ]
    assert "usageNanoCores" not in plan_summary("n1", readings(), None)["node"]["cpu"]


def test_the_rate_of_the_node() -> None:
    later = replace(NODE, time=NODE.time + 2 * SECOND, cpu=NODE.cpu + 3 * SECOND)
    assert plan_rate(NODE, later) == 3 * SECOND // 2 and plan_rate(NODE, NODE) is None


def test_this_node() -> None:
    one, two = collect_node(), collect_node()
    assert 0 < one.started < one.time <= two.time and 0 < one.cpu <= two.cpu
    assert 0 < one.working <= one.used and one.available > 0 and one.page_faults <= two.page_faults


@pytest.mark.parametrize(
    ("text", "place"), [("127.0.0.1:0", ("127.0.0.1", 0)), ("[::1]:9", ("::1", 9)), ("a:65535", ("a", 65535))]
)
def test_places(text: str, place: tuple[str, int]) -> None:
    assert parse_place(text) == place


@pytest.mark.parametrize("text", ["", "9338", ":9338", "::1:9338", "a:65536", "a:b", "a:"])
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(InvalidArgument, match="is no address with a port"):
        parse_place(text)


ROUTES = """Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0
"""
ZEROS = "0" * 32
ROUTES_6 = f"""{ZEROS} 00 {ZEROS} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00450003     eth1
{ZEROS} 00 {ZEROS} 00 {ZEROS} ffffffff 00000001 00000000 00200200       lo
fe800000000000000000000000000000 40 {ZEROS} 00 {ZEROS} 00000100 00000001 00000000 00000001     eth2
"""


def test_what_the_node_sends() -> None:
    """Of the interfaces of the default routes; a half of all addresses is none, and what begins anew has no rate."""
    assert parse_ways(ROUTES, "") == {"eth0"} and parse_ways("", ROUTES_6) == {"eth1"} and parse_ways("", "") == set()
    before = replace(NODE, received=1000, sent=500)
    after = replace(NODE, time=NODE.time + 2 * SECOND, received=3000, sent=600)
    assert plan_traffic(before, after) == (1000, 50)
    assert plan_traffic(before, before) is None and plan_traffic(NODE, after) is None
    assert plan_traffic(before, replace(after, sent=499)) is None
