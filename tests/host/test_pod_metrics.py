"""`pyrun metrics` over `pyrun cri`: what a real Prometheus makes of it, and scrapers that ask for everything."""

from __future__ import annotations

import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from pyrun.errors import PyrunError
from pyrun.metrics.store import FILE
from tests.support.container.disk import unmount
from tests.support.cri.node import Node
from tests.support.cri.node import node as node
from tests.support.cri.node import one_node as one_node
from tests.support.promtool import check_metrics

PATIENCE_S = 60.0
BUSY = "while :; do :; done"


@contextmanager
def serving(socket: Path, *more: str) -> Iterator[str]:
    """`pyrun metrics`: its place."""
    argv = ["metrics", "--address", "127.0.0.1:0", "--node-name", "n1", "--listen", f"unix://{socket}", *more]
    process = subprocess.Popen([sys.executable, "-m", "pyrun", *argv], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        said = process.stderr.readline()
        yield said.split("http://")[1].split("/")[0]
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.fixture
def exporter(node: Node) -> Iterator[str]:
    with serving(node.socket) as place:
        yield place


def get(place: str, path: str) -> str:
    with urllib.request.urlopen(f"http://{place}{path}", timeout=PATIENCE_S) as answer:
        text: str = answer.read().decode()
        return text


def test_the_forms(node: Node, exporter: str) -> None:
    node.run(node.run_pod(), "busy", BUSY)
    told = json.loads(get(exporter, "/stats/summary"))
    [pod] = [pod for pod in told["pods"] if pod["podRef"]["name"] == "p"]
    assert [one["name"] for one in pod["containers"]] == ["busy"] and told["node"]["nodeName"] == "n1"
    assert told["node"]["cpu"]["usageNanoCores"] >= 0
    text = get(exporter, "/metrics/cadvisor")
    assert 'container_cpu_usage_seconds_total{container="busy",' in text
    assert 'container_network_receive_bytes_total{container="",' in text
    ids = set(re.findall(r'^container_cpu_usage_seconds_total\{container="[^"]*",id="([^"]*)"', text, re.MULTILINE))
    assert "/" in ids and not any(id.startswith("/sys") for id in ids) and len(ids) > 2, ids  # as cAdvisor has them
    assert 'container_cpu_usage_seconds_total{container="busy",namespace="default",pod="p"}' in get(
        exporter, "/metrics/resource"
    )
    with pytest.raises(PyrunError):
        node.call("ContainerStatus", container_id="nothing")
    with pytest.raises(PyrunError, match="nothing-there"):
        node.run(node.run_pod("wrong"), "wrong", "true", "wrong", working_dir="/dev/null/nothing-there")
    check_durations(get(exporter, "/metrics"))
    check_steps(get(exporter, "/metrics"))
    for page in ("/metrics", "/metrics/cadvisor", "/metrics/resource"):
        check_metrics(page, get(exporter, page))


def check_durations(text: str) -> None:
    """What each call took, and how it ended, of the runtime itself."""
    of = 'grpc_method="StartContainer",grpc_service="runtime.v1.RuntimeService",grpc_type="unary"'
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    buckets = [
        int(count) for name, count in samples.items() if name.startswith(f"grpc_server_handling_seconds_bucket{{{of}")
    ]
    assert buckets == sorted(buckets) and len(buckets) == 14
    count = int(samples[f"grpc_server_handling_seconds_count{{{of}}}"])
    assert count == buckets[-1] == int(samples[f'grpc_server_handled_total{{grpc_code="OK",{of}}}']) > 0
    assert float(samples[f"grpc_server_handling_seconds_sum{{{of}}}"]) > 0
    assert 'grpc_server_handled_total{grpc_code="NotFound",grpc_method="ContainerStatus"' in text
    assert "pyrun_loop_lag_seconds_count" in samples


def check_steps(text: str) -> None:
    """What the steps of containers' plans took, in the parent and in both stages of the child, and which failed."""
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    counts = {
        name: int(value) for name, value in samples.items() if name.startswith("pyrun_step_duration_seconds_count")
    }
    assert {name.split('"')[1] for name in counts} == {"parent", "stage1", "stage2"} and all(counts.values())
    for of in ('lane="parent",step="clone3"', 'lane="stage2",step="pivot_root"'):
        count = counts[f"pyrun_step_duration_seconds_count{{{of}}}"]
        assert count == int(samples[f'pyrun_step_duration_seconds_bucket{{{of},le="+Inf"}}'])
        assert 0 < float(samples[f"pyrun_step_duration_seconds_sum{{{of}}}"]) < 60 * count
    assert len(counts) < 150


def test_what_is_not_there(exporter: str) -> None:
    for path in ("/nothing", "/metrics/../etc/passwd"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            get(exporter, path)
        assert refused.value.code == 404


def test_a_runtime_that_is_away(tmp_path: Path) -> None:
    with serving(tmp_path / "cri.sock") as place:
        for path in ("/metrics/cadvisor", "/metrics/resource", "/stats/summary"):
            with pytest.raises(urllib.error.HTTPError) as refused:
                get(place, path)
            assert refused.value.code == 503 and b"cri.sock: no such file or directory" in refused.value.read()
        failures = [line for line in get(place, "/metrics").splitlines() if "_failures_total " in line]
        assert int(failures[-1].split()[1]) > 0
        assert get(place, "/healthz") == "ok\n"


def test_the_past(node: Node, tmp_path: Path) -> None:
    """What is kept is there for another process, and after a restart; what it says is what was used."""
    node.run(node.run_pod(), "busy", BUSY)
    path = "/history?namespace=default&pod=p&uid=uid-p&step=2"

    def points(place: str, name: str) -> list[Any]:
        told = json.loads(get(place, path))
        return [point for one in told["series"] if one["name"] == name for point in one["points"]]

    kept = ("--store", str(tmp_path / "store"), "--every", "1s")
    with serving(node.socket, *kept) as place:
        found = wait(lambda: points(place, "pod_cpu_usage_seconds_total")[:-1])  # the last step is not over
        assert 0 < found[0][1] < 5
    with serving(node.socket, *kept) as place:
        assert points(place, "pod_cpu_usage_seconds_total")[0] == found[0]
        assert json.loads(get(place, "/history?step=10"))["series"][0]["name"] == "node_cpu_usage_seconds_total"
        for wrong in ("seconds=x", "step=0", "seconds=99999999999"):
            with pytest.raises(urllib.error.HTTPError) as refused:
                get(place, f"/history?{wrong}")
            assert refused.value.code == 400
    with serving(node.socket) as place, pytest.raises(urllib.error.HTTPError) as refused:
        get(place, "/history")
    assert refused.value.code == 404


def test_a_full_disk_below_the_store(node: Node, tmp_path: Path) -> None:
    """What can't be kept is counted and told, once; pages are served, and when there is room again all goes on. Nothing
    is damaged, also not by a kill meanwhile."""
    node.run(node.run_pod(), "busy", BUSY)
    store = tmp_path / "store"
    store.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", store], check=True)
    argv = [sys.executable, "-m", "pyrun", "metrics", "--address", "127.0.0.1:0", "--listen", f"unix://{node.socket}"]

    started: list[subprocess.Popen[bytes]] = []

    def start() -> str:
        with (tmp_path / "said").open("wb") as file:
            started.append(subprocess.Popen([*argv, "--store", str(store), "--every", "1s"], stderr=file))
        return str(wait(lambda: re.findall(r"http://([^/]+)/", (tmp_path / "said").read_text()))[0])

    def end() -> None:
        for process in started:
            process.kill()
            process.wait(PATIENCE_S)

    def count(name: str) -> int:
        found = re.search(rf"^pyrun_metrics_store_{name}_total (\d+)$", get(place, "/metrics"), re.MULTILINE)
        assert found is not None
        return int(found[1])

    try:
        place = start()
        wait(lambda: count("scrapes") > 3)
        with (store / "filler").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(512))
        wait(lambda: count("lost") > 2)
        assert 'container="busy"' in get(place, "/metrics/cadvisor") and get(place, "/healthz") == "ok\n"
        before = json.loads(get(place, "/history?seconds=600&step=1"))["series"]
        assert before and all(one["points"] for one in before)
        (store / "filler").unlink()
        kept = count("scrapes")
        wait(lambda: count("scrapes") > kept + 1)
        said = (tmp_path / "said").read_text()
        assert said.count("are not kept: database or disk is full") == 1 and said.count("are kept again") == 1, said

        with (store / "filler").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(512))
        lost = count("lost")
        wait(lambda: count("lost") > lost)
        end()
        (store / "filler").unlink()
        place = start()
        kept = count("scrapes")
        wait(lambda: count("scrapes") > kept)
        after = json.loads(get(place, "/history?seconds=600&step=1"))["series"]
        assert after[0]["points"][0] == before[0]["points"][0]
        with closing(sqlite3.connect(store / FILE)) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert not list(store.glob("*.damaged*"))
    finally:
        end()
        unmount(store)


def test_a_disk_that_is_full_at_the_start(node: Node, tmp_path: Path) -> None:
    """It serves, says once what it can't do, and keeps what it reads as soon as there is room."""
    store, said = tmp_path / "store", tmp_path / "said"
    store.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", store], check=True)
    argv = [sys.executable, "-m", "pyrun", "metrics", "--address", "127.0.0.1:0", "--listen", f"unix://{node.socket}"]
    argv += ["--store", str(store), "--every", "1s", "--remote-write", "http://127.0.0.1:9/"]
    with (store / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(512))
    with said.open("wb") as file:
        process = subprocess.Popen(argv, stderr=file)
    try:
        place = wait(lambda: re.findall(r"http://([^/]+)/metrics/", said.read_text()))[0]
        wait(lambda: int(re.findall(r"^pyrun_metrics_store_lost_total (\d+)$", get(place, "/metrics"), re.M)[0]) > 1)
        assert "node_cpu_usage_seconds_total" in get(place, "/metrics/resource")
        (store / "filler").unlink()
        wait(lambda: "are kept again" in said.read_text())
        text = said.read_text()
        assert text.count("readings are not kept: ") == 1 and f"{store}/{FILE}: " in text, text
        wait(lambda: json.loads(get(place, "/history?seconds=600&step=1"))["series"])
    finally:
        process.kill()
        process.wait(PATIENCE_S)
        unmount(store)


def test_many_scrapers_cost_one_reading(node: Node, exporter: str) -> None:
    del node
    with ThreadPoolExecutor(20) as threads:
        found = list(threads.map(lambda _: get(exporter, "/metrics/resource"), range(100)))
    assert all("node_memory_working_set_bytes" in text for text in found)
    readings = next(
        line for line in get(exporter, "/metrics").splitlines() if line.startswith("pyrun_metrics_readings_total")
    )
    assert int(readings.split()[1]) < 100


@pytest.fixture
def prometheus(exporter: str, tmp_path: Path) -> Iterator[str]:
    """A real one that scrapes ours: its place."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("Debian's prometheus is not installed")
    jobs = [
        {"job_name": path, "metrics_path": path, "static_configs": [{"targets": [exporter]}]}
        for path in ("/metrics/cadvisor", "/metrics/resource", "/metrics")
    ]
    config = tmp_path / "prometheus.yml"
    config.write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": jobs}))
    place = f"127.0.0.1:{free_port()}"
    options = {"config.file": config, "storage.tsdb.path": tmp_path / "tsdb", "web.listen-address": place}
    with (tmp_path / "said").open("wb") as said:
        process = subprocess.Popen([program, *(f"--{key}={value}" for key, value in options.items())], stderr=said)
    try:
        wait(lambda: get(place, "/-/ready"))
        yield place
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def wait(ask: Any) -> Any:
    """What it says once it says something."""
    last = time.monotonic() + PATIENCE_S
    while True:
        try:
            if found := ask():
                return found
        except (OSError, urllib.error.URLError):
            pass
        assert time.monotonic() < last, "nothing came"
        time.sleep(0.2)


def query(place: str, text: str) -> list[Any]:
    answer = json.loads(get(place, "/api/v1/query?" + urllib.parse.urlencode({"query": text})))
    assert answer["status"] == "success", answer
    found: list[Any] = answer["data"]["result"]
    return found


def test_a_real_prometheus(node: Node, prometheus: str) -> None:
    """The queries of the common boards "Kubernetes / Compute Resources" find what is there."""
    node.run(node.run_pod(), "busy", BUSY)
    by_pod = (
        'sum by (namespace, pod) (rate(container_cpu_usage_seconds_total{container!="",job="/metrics/cadvisor"}[1m]))'
    )
    [found] = wait(lambda: [one for one in query(prometheus, by_pod) if float(one["value"][1]) > 0])
    assert found["metric"] == {"namespace": "default", "pod": "p"} and float(found["value"][1]) < 1.5
    network = query(prometheus, 'sum by (pod) (container_network_receive_bytes_total{pod="p"})')
    assert [one["metric"] for one in network] == [{"pod": "p"}]
    quantile = 'histogram_quantile(0.99, grpc_server_handling_seconds_bucket{grpc_method="RunPodSandbox"})'
    [found] = wait(lambda: query(prometheus, quantile))
    assert 0 < float(found["value"][1]) <= 10
    assert [one["value"][1] for one in query(prometheus, "min(up)")] == ["1"]
