"""Remote write: a real Prometheus has every sample that was kept, also those of when it was away, or we were."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrun.errors import PyrunError
from pyrun.metrics.block import SECOND
from pyrun.metrics.past import read_all
from pyrun.metrics.remote import plan_parts, snappy
from pyrun.metrics.remote_writer import SENT, RemoteWriter
from pyrun.metrics.samples import Series
from pyrun.metrics.store import Keep, Store

from .test_logs_blocks import wait_for
from .test_logs_ship import free_port

CPU = Series("pod_cpu_usage_seconds_total", "shop", "cart", "u")
MEMORY = Series("node_memory_working_set_bytes")


def unsnappy(data: bytes) -> bytes:
    """Of literals alone."""
    at = shift = size = 0
    while True:
        size |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if not data[at - 1] & 0x80:
            break
    found = b""
    while at < len(data):
        assert data[at] == 61 << 2
        length = int.from_bytes(data[at + 1 : at + 3], "little") + 1
        found += data[at + 3 : at + 3 + length]
        at += 3 + length
    assert len(found) == size
    return found


@given(st.binary(max_size=1000), st.integers(0, 300))
def test_snappy(data: bytes, times: int) -> None:
    assert unsnappy(snappy(data * times)) == data * times


def test_parts() -> None:
    found = {Series(str(number)): ([1, 2, 3], [4, 5, 6]) for number in range(5)}
    parts = plan_parts(found, 6)
    assert [len(part) for part in parts] == [2, 2, 1] and {**parts[0], **parts[1], **parts[2]} == found
    assert plan_parts({}, 6) == [{}]


def query(port: int, text: str) -> list[list[object]]:
    """[time, value] of the only series."""
    url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": text})
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            result = json.load(answer)["data"]["result"]
    except (OSError, urllib.error.URLError):
        return []
    return list(result[0]["values"]) if len(result) == 1 else []


def test_prometheus_has_all_that_was_kept(tmp_path: Path) -> None:
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("Debian's prometheus is not installed")
    port, directory = free_port(), tmp_path / "store"
    directory.mkdir()
    store = Store(str(directory), Keep())
    begun = int(time.time() * SECOND) - 120 * SECOND
    (directory / SENT).write_text(f"{begun}\n")
    written = 0

    def write(count: int) -> None:
        nonlocal written
        for _ in range(count):
            store.append(begun + (written + 1) * SECOND, {CPU: written * 1_500_000, MEMORY: 1 << 40 | written})
            written += 1

    def remote() -> RemoteWriter:
        one = RemoteWriter(f"http://127.0.0.1:{port}/api/v1/write", str(directory), "n1", 0.1, 3600)
        one.start()
        return one

    write(20)
    writer = remote()
    wait_for(lambda: writer.failures > 0, "it has seen that nobody is there")
    (tmp_path / "prometheus.yml").write_text("{}")
    argv = [program, "--web.enable-remote-write-receiver", f"--web.listen-address=127.0.0.1:{port}"]
    argv += [f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/tsdb"]
    with (tmp_path / "said").open("wb") as said:
        server = subprocess.Popen(argv, stderr=said)
    try:
        wait_for(lambda: writer.samples == 2 * written, "what is there is taken")
        writer.stop()
        write(30)
        writer = remote()
        write(10)
        name = 'pod_cpu_usage_seconds_total{namespace="shop",pod="cart",node="n1"}[10m]'
        wait_for(lambda: len(query(port, name)) == written, "each sample is there")
        assert [float(str(value)) for _, value in query(port, name)] == [number * 1.5 for number in range(written)]
        memory = query(port, "node_memory_working_set_bytes[10m]")
        assert [int(str(value)) for _, value in memory] == [1 << 40 | number for number in range(written)]
        assert writer.dropped == 0
    finally:
        writer.stop()
        server.kill()
        server.wait()
        store.close()


def test_all_series_of_a_time(tmp_path: Path) -> None:
    with pytest.raises(PyrunError, match="not there"):
        read_all(str(tmp_path), 0, 1)
    store = Store(str(tmp_path), Keep())
    hour = 500_000 * 3600 * SECOND
    for number in range(0, 7200, 600):
        store.append(hour + number * SECOND, {CPU: number, MEMORY: 7})
    store.close()
    found = read_all(str(tmp_path), hour + 600 * SECOND, hour + 4200 * SECOND)
    assert found[CPU][1] == [600, 1200, 1800, 2400, 3000, 3600, 4200] and found[MEMORY][1] == [7] * 7


def test_no_error_ends_sending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fault is counted, told once for its text, and the next look is as any other."""
    Store(str(tmp_path), Keep()).close()
    faults = [AttributeError("of our own")] * 3
    looks: list[str] = []

    def faulty(directory: str, since: int, until: int) -> object:
        looks.append(directory)
        if faults:
            raise faults.pop()
        return read_all(directory, since, until)

    monkeypatch.setattr("pyrun.metrics.remote_writer.read_all", faulty)
    writer = RemoteWriter("http://127.0.0.1:1/write", str(tmp_path), "n1", 0.01, 3600)
    writer.start()
    try:
        wait_for(lambda: len(looks) > 5, "it goes on")
    finally:
        writer.stop(60)
    assert writer.failures == 3
    assert capsys.readouterr().err.count("AttributeError: of our own; it goes on where it was") == 1
