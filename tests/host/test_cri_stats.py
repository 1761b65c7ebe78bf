"""Statistics of pods and containers that run, through the daemon's socket."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyrun import cri_api as v1
from pyrun.cri.metrics import DESCRIPTORS
from pyrun.cri.runtime import stats as stats_rpcs
from tests.support.container.leaks import CGROUP_ROOT
from tests.support.container.runner import wait_for
from tests.support.cri.node import OWN_PIDS, Node, a_node

BUSY = "dd if=/dev/zero of=/filled bs=64k count=32 2>/dev/null; mkdir /d; touch /d/a; while :; do :; done"


@pytest.fixture
def node(tmp_path: Path, busybox_rootfs: Path) -> Iterator[Node]:
    with a_node(tmp_path, busybox_rootfs) as found:
        found.fork()
        yield found


def test_a_busy_container(node: Node) -> None:
    pod = node.run_pod(labels={"app": "a"})
    c = node.run(pod, script=BUSY, labels={"foo": "bar"})
    first = node.call("ContainerStats", container_id=c).stats
    assert first.attributes.id == c and first.attributes.metadata.name == "c"
    assert first.attributes.labels["foo"] == "bar"
    assert not first.cpu.HasField("usage_nano_cores"), "there was no look before"
    time.sleep(1.2)
    (again,) = node.call("ListContainerStats", filter={"label_selector": {"foo": "bar"}}).stats
    assert again.cpu.usage_core_nano_seconds.value > first.cpu.usage_core_nano_seconds.value
    assert 10_000_000 < again.cpu.usage_nano_cores.value < 1_500_000_000
    assert again.cpu.timestamp > first.cpu.timestamp
    assert not node.call("ListContainerStats", filter={"label_selector": {"foo": "baz"}}).stats
    assert not node.call("ListContainerStats", filter={"pod_sandbox_id": "f" * 64}).stats

    (of_pod,) = node.call("ListPodSandboxStats", filter={"label_selector": {"app": "a"}}).stats
    assert of_pod.attributes.id == pod
    assert of_pod.linux.cpu.usage_core_nano_seconds.value >= again.cpu.usage_core_nano_seconds.value
    assert [one.attributes.id for one in of_pod.linux.containers] == [c]
    assert of_pod.linux.network.default_interface.name == "eth0"


class Stepped:
    """The time module, where somebody sets the clock back by a minute before each look at it."""

    monotonic_ns = staticmethod(time.monotonic_ns)

    def __init__(self) -> None:
        self.back = 0

    def time_ns(self) -> int:
        self.back += 60_000_000_000
        return time.time_ns() - self.back


def test_a_clock_that_is_set_back(tmp_path: Path, busybox_rootfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate is over the time that went by, whatever the clock says."""
    monkeypatch.setattr(stats_rpcs, "time", Stepped())
    with a_node(tmp_path, busybox_rootfs) as node:
        node.fork()
        c = node.run(node.run_pod(), script=BUSY)

        def rate() -> int:
            return int(node.call("ContainerStats", container_id=c).stats.cpu.usage_nano_cores.value)

        wait_for(lambda: rate() > 0, 60, "a rate")


def test_what_the_kernel_does_not_give_is_unset(node: Node) -> None:
    """And what it gives is what it says."""
    pod = node.run_pod()
    c = node.run(pod)
    stats = node.call("ContainerStats", container_id=c).stats
    cgroup = CGROUP_ROOT / "pyrun" / pod / c
    assert stats.memory.timestamp
    for name, field in (("memory.current", "usage_bytes"), ("memory.stat", "rss_bytes")):
        assert stats.memory.HasField(field) == (cgroup / name).exists(), name
    assert stats.HasField("swap") == (cgroup / "memory.swap.current").exists()
    assert stats.cpu.HasField("psi") == (cgroup / "cpu.pressure").exists()
    assert stats.HasField("io") == (cgroup / "io.pressure").exists()


def test_what_was_written(node: Node) -> None:
    pod = node.run_pod()
    c = node.run(pod, script="dd if=/dev/zero of=/filled bs=64k count=32 2>/dev/null; ln -s / /l; echo up; sleep 100")
    last = time.monotonic() + 60
    while node.log() != ["up"]:
        assert time.monotonic() < last
        time.sleep(0.01)
    layer = node.call("ContainerStats", container_id=c).stats.writable_layer
    upper = node.root / "pods" / pod / c / "upper"
    paths = [upper, *upper.rglob("*")]
    assert layer.inodes_used.value == len(paths)
    assert layer.used_bytes.value == sum(path.lstat().st_blocks for path in paths) * 512 >= 2 << 20
    assert os.path.isdir(layer.fs_id.mountpoint)


def test_traffic_is_counted(node: Node) -> None:
    pod = node.run_pod()

    def sent() -> int:
        return int(
            node.call("PodSandboxStats", pod_sandbox_id=pod).stats.linux.network.default_interface.tx_bytes.value
        )

    before = sent()
    gateway = "169.254.1.1"
    c = node.run(pod, script=f"ping -c 3 -i 0.1 -s 1000 -W 1 {gateway}; exit 0")
    node.wait_state(c, v1.CONTAINER_EXITED)
    assert sent() >= before + 3000


def test_one_that_has_ended(node: Node) -> None:
    """It has attributes and its layer still; a list has those that live."""
    pod = node.run_pod()
    c = node.run(pod, script="echo > /one")
    node.wait_state(c, v1.CONTAINER_EXITED)
    stats = node.call("ContainerStats", container_id=c).stats
    assert stats.attributes.id == c and not stats.HasField("cpu")
    upper = node.root / "pods" / pod / c / "upper"
    assert (upper / "one").exists()
    assert stats.writable_layer.inodes_used.value == len([upper, *upper.rglob("*")])
    assert not node.call("ListContainerStats").stats
    node.call("StopPodSandbox", pod_sandbox_id=pod)
    assert not node.call("ListPodSandboxStats").stats
    assert node.call("PodSandboxStats", pod_sandbox_id=pod).stats.attributes.id == pod


@pytest.mark.usefixtures("crictl")
def test_crictl_shows_them(node: Node) -> None:
    pod = node.run_pod()
    c = node.run(pod, script=BUSY)
    listed = node.crictl("stats", "-o", "json", "-s", "1").ok()
    (found,) = json.loads(listed.out)["stats"]
    assert found["attributes"]["id"] == c and int(found["cpu"]["usageCoreNanoSeconds"]["value"]) > 0
    listed = node.crictl("statsp", "-o", "json", "-s", "1").ok()
    assert json.loads(listed.out)["stats"][0]["attributes"]["id"] == pod
    listed = node.crictl("metricsp").ok()
    assert "container_cpu_usage_seconds_total" in listed.out


def test_metrics(node: Node) -> None:
    pod = node.run_pod()
    resources = {"cpu_period": 100000, "cpu_quota": 20000, "cpu_shares": 512}
    c = node.run(pod, script="while :; do :; done", linux={"resources": resources, **OWN_PIDS})
    descriptors = {one.name: one for one in node.call("ListMetricDescriptors").descriptors}
    assert len(descriptors) == len(DESCRIPTORS) and all(one.help and one.label_keys for one in descriptors.values())
    (found,) = node.call("ListPodSandboxMetrics").pod_metrics
    assert found.pod_sandbox_id == pod
    (of_container,) = found.container_metrics
    assert of_container.container_id == c
    for one in [*found.metrics, *of_container.metrics]:
        assert len(one.label_values) == len(descriptors[one.name].label_keys), one.name
    values = {one.name: one.value.value for one in of_container.metrics}
    assert values["container_processes"] == 1 and values["container_threads"] == 1
    assert values["container_file_descriptors"] >= 3
    assert values["container_spec_cpu_quota"] == 20000 and values["container_spec_cpu_shares"] == 512
    assert abs(values["container_start_time_seconds"] - time.time()) < 60
    cgroup = CGROUP_ROOT / "pyrun" / pod / c
    assert ("container_memory_rss" in values) == (cgroup / "memory.stat").exists()
    assert "container_network_receive_bytes_total" in {one.name for one in found.metrics}


def test_resources_of_a_pod_are_kept(node: Node) -> None:
    """The kubelet has written its cgroup: what we are told outlives us."""
    pod = node.run_pod()
    node.call("UpdatePodSandboxResources", pod_sandbox_id=pod, resources={"cpu_shares": 77})
    node.kill()
    node.fork()
    record = json.loads((node.root / "pods" / pod / "pod.json").read_text())
    assert v1.LinuxContainerResources.FromString(base64.b64decode(record["resources"])).cpu_shares == 77


# Of each stream: the list that says the same, the field of its messages, and what is not the same in two looks.
STREAMS = {
    "StreamPodSandboxes": ("ListPodSandbox", "items", "pod_sandboxes"),
    "StreamContainers": ("ListContainers", "containers", "containers"),
    "StreamImages": ("ListImages", "images", "images"),
    "StreamContainerStats": ("ListContainerStats", "stats", "container_stats"),
    "StreamPodSandboxStats": ("ListPodSandboxStats", "stats", "pod_sandbox_stats"),
    "StreamPodSandboxMetrics": ("ListPodSandboxMetrics", "pod_metrics", "pod_sandbox_metrics"),
}


def test_each_stream_says_what_its_list_does(node: Node) -> None:
    """And takes the same filter. A reading is of its moment: of these it is what they are of that counts."""
    pods = {name: node.run_pod(name, labels={"app": name}) for name in ("one", "two")}
    ids = {name: node.run(pod, name, pod_name=name) for name, pod in pods.items()}
    for stream, (listed, items, field) in STREAMS.items():
        wanted = [_subject(one) for one in getattr(node.call(listed), items)]
        found = [_subject(one) for message in node.stream(stream) for one in getattr(message, field)]
        assert found == wanted and len(found) == (1 if "Images" in stream else 2), stream
    for stream, id in (("StreamPodSandboxes", pods["two"]), ("StreamPodSandboxStats", pods["two"])):
        (message,) = node.stream(stream, filter={"label_selector": {"app": "two"}})
        assert [_id(one) for one in getattr(message, STREAMS[stream][2])] == [id]
    for stream in ("StreamContainers", "StreamContainerStats"):
        (message,) = node.stream(stream, filter={"pod_sandbox_id": pods["two"]})
        assert [_id(one) for one in getattr(message, STREAMS[stream][2])] == [ids["two"]]
    assert not node.stream("StreamImages", filter={"image": {"image": "registry.test/none:1"}})


def _id(one: Any) -> str:
    return str(one.attributes.id if hasattr(one, "attributes") else one.id)


def _subject(one: Any) -> Any:
    """All of an item but what was measured."""
    if hasattr(one, "attributes"):
        return one.attributes
    if hasattr(one, "pod_sandbox_id") and hasattr(one, "container_metrics"):
        assert one.metrics and all(c.metrics for c in one.container_metrics)
        return one.pod_sandbox_id, [c.container_id for c in one.container_metrics]
    return one
