"""Counters of cgroups and networks out of the kernel's files, and what becomes of them in the CRI's messages."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from pyrun import cri_api as v1
from pyrun.cri import metrics, usage
from pyrun.pod.stats import Counters, Interface, Pressure, Reading, read_cgroup, walk
from pyrun.pod.stats.cgroup import parse_devices, parse_keys, parse_number, parse_pressure
from pyrun.pod.stats.network import parse_net_dev
from pyrun.pod.stats.written import Walker

GIB = 1 << 30
FILES = {
    "cpu.stat": "usage_usec 5000000\nuser_usec 3000000\nsystem_usec 2000000\n"
    "nr_periods 7\nnr_throttled 2\nthrottled_usec 4000000\n",
    "cpu.pressure": "some avg10=1.50 avg60=0.25 avg300=0.01 total=99\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n",
    "memory.stat": "anon 1000\nfile 4096\nkernel 77\ninactive_file 4000\npgfault 12\npgmajfault 3\n"
    "file_mapped 5\nnew thing\n",
    "memory.current": "8192\n",
    "memory.max": f"{GIB}\n",
    "memory.peak": "9000\n",
    "memory.swap.current": "100\n",
    "memory.swap.max": "max\n",
    "memory.events": "low 0\nhigh 0\nmax 4\noom 1\noom_kill 1\n",
    "memory.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=2000000\n",
    "io.stat": "259:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n7:0 \n",
    "pids.current": "5\n",
    "pids.max": "max\n",
    "hugetlb.2MB.current": "4194304\n",
    "hugetlb.2MB.rsvd.current": "0\n",
}
NET_DEV = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100    1    0    0    0     0       0          0
  eth1:  1    2    3    4    0     0          0         0        5    6    7    8    0     0       0          0
  eth0:1234567890123 12 1 2    0     0          0         0     4321      34    3    4    0     0       0          0
  bad0: 1 2
"""


@pytest.fixture
def cgroup(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_cgroup_with_all_controllers(cgroup: Path) -> None:
    found = read_cgroup(str(cgroup), rare=True)
    assert found is not None
    assert found.working_set == 4192
    assert (found.memory_max, found.swap_current, found.swap_max) == (GIB, 100, None)
    assert (found.threads, found.threads_max, found.memory_peak) == (5, None, 9000)
    assert found.pressure["cpu"]["some"] == Pressure(99, 1.5, 0.25, 0.01)
    assert found.devices == {"259:0": {"rbytes": 4096, "wbytes": 8192, "rios": 1, "wios": 2, "dbytes": 0, "dios": 0}}
    assert found.hugetlb == {"2MB": 4194304}
    stats = usage.memory_usage(9, found)
    assert (stats.working_set_bytes.value, stats.usage_bytes.value, stats.rss_bytes.value) == (4192, 8192, 1000)
    assert stats.available_bytes.value == GIB - 4192
    assert (stats.page_faults.value, stats.major_page_faults.value) == (12, 3)
    assert usage.cpu_usage(9, found, 7).psi.Some.Total == 99_000  # ns, and the kernel has µs
    assert not usage.swap_usage(9, found).HasField("swap_available_bytes")


def test_a_cgroup_without_controllers(tmp_path: Path) -> None:
    """As the pure view of a hybrid machine has them: nothing is made up."""
    (tmp_path / "cpu.stat").write_text("usage_usec 5\nuser_usec 3\nsystem_usec 2\n")
    found = read_cgroup(str(tmp_path), rare=True)
    assert found is not None
    assert usage.memory_usage(9, found) == v1.MemoryUsage(timestamp=9)
    assert usage.swap_usage(9, found) is None and usage.io_usage(9, found) is None
    names = {name for name, _, value in metrics.of_cgroup(found, 100) if value is not None}
    assert names == {f"container_cpu_{what}_seconds_total" for what in ("usage", "user", "system")}


def test_one_that_is_gone(tmp_path: Path) -> None:
    assert read_cgroup(str(tmp_path / "none")) is None
    assert read_cgroup(str(tmp_path)) is None


def test_lines_that_are_not_understood() -> None:
    assert parse_keys("a 1\nb x\nc\nd 2 3\n") == {"a": 1}
    assert parse_number("max\n") is None and parse_number("") is None and parse_number("-1") is None
    assert parse_pressure("some avg10=x total=1\nfull\n") == {}
    assert parse_devices("8:0 rbytes=1 x wbytes=-\nnone rbytes=1\n") == {"8:0": {"rbytes": 1}}


def test_interfaces() -> None:
    eth1, eth0 = parse_net_dev(NET_DEV)
    assert eth0 == Interface("eth0", 1234567890123, 12, 1, 2, 4321, 34, 3, 4)
    stats = usage.network_usage(1, [eth1, eth0])
    assert stats.default_interface.name == "eth0" and [one.name for one in stats.interfaces] == ["eth1"]
    assert stats.default_interface.tx_errors.value == 3
    assert usage.network_usage(1, []) is None


def test_a_rate_needs_a_window() -> None:
    counters, second = Counters(), 1_000_000_000
    assert counters.rate("a", 0, 100) is None
    assert counters.rate("a", second // 2, 200) is None
    assert counters.rate("a", 2 * second, 100 + second) == second // 2
    assert counters.rate("a", 2 * second + 5, 200 + second) == second // 2  # too soon for another
    assert counters.rate("a", 9 * second, 0) is None  # another cgroup of that name
    counters.keep((), ())
    assert counters.rate("a", 20 * second, second) is None


def test_every_metric_has_a_descriptor_and_its_labels(cgroup: Path) -> None:
    from pyrun.pod.stats.cgroup import Processes
    from pyrun.pod.stats.written import Written

    found = read_cgroup(str(cgroup), rare=True)
    assert found is not None
    resources = v1.LinuxContainerResources(
        cpu_period=1, cpu_quota=2, cpu_shares=3, memory_limit_in_bytes=4, unified={"memory.low": "5"}
    )
    samples = [
        *metrics.of_cgroup(found, 100),
        *metrics.of_processes(Processes(1, 2, 3, 4, 5)),
        *metrics.of_request(resources),
        *metrics.of_times(5_000_000_000, 6_000_000_000),
        *metrics.of_files(Written(1, 2, 3), metrics.Room("8:0", 1, 2, 3)),
        *metrics.of_network(parse_net_dev(NET_DEV)),
    ]
    reading = Reading(
        pressure={name: {"some": Pressure(1, 0, 0, 0), "full": Pressure(1, 0, 0, 0)} for name in ("io", "memory")}
    )
    samples += metrics.of_cgroup(reading, None)
    made = metrics.metrics(("",) * len(metrics.LABELS), samples)
    keys = {one.name: one.label_keys for one in metrics.descriptors()}
    for one in made:
        assert len(one.label_values) == len(keys[one.name]), one.name
    assert {one.name for one in made} == set(keys)
    values = {one.name: one.value.value for one in made if one.name in keys}
    assert values["container_cpu_cfs_throttled_seconds_total"] == 4 and values["container_threads_max"] == 100
    assert values["container_oom_events_total"] == 1 and values["container_memory_failcnt"] == 4


# --- what was written -------------------------------------------------------------------------------------------------


def test_a_walk_counts_as_du_does(tmp_path: Path) -> None:
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "file").write_bytes(b"x" * 100_000)
    os.link(tmp_path / "d" / "file", tmp_path / "again")
    (tmp_path / "out").symlink_to("/usr")
    os.mkfifo(tmp_path / "fifo")
    found = walk(str(tmp_path))
    paths = [path for path in (tmp_path, *tmp_path.rglob("*")) if path.name != "again"]
    assert found is not None
    assert found.inodes == len(paths) == 6
    assert found.bytes == sum(path.lstat().st_blocks for path in paths) * 512


def test_a_walk_has_bounds(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    os.makedirs(tmp_path / "/".join("d" * 20))
    assert walk(str(tmp_path), depth=10) is None
    assert walk(str(tmp_path), entries=10) is None
    assert walk(str(tmp_path), seconds=-1) is None
    assert walk(str(tmp_path / "none")) is None
    found = walk(str(tmp_path))
    assert found is not None and found.inodes == 21
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_walk_of_what_changes(tmp_path: Path) -> None:
    """Directories become links to a tree outside and back, while it is walked: nothing outside is counted."""
    outside = tmp_path / "outside"
    for n in range(50):
        (outside / f"{n}").mkdir(parents=True)
    top = tmp_path / "top"
    (top / "a").mkdir(parents=True)
    ends = threading.Event()

    def swap() -> None:
        while not ends.is_set():
            os.rename(top / "a", tmp_path / "away")
            os.symlink(outside, top / "a")
            os.unlink(top / "a")
            os.rename(tmp_path / "away", top / "a")

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        last = time.monotonic() + 0.5
        while time.monotonic() < last:
            found = walk(str(top))
            assert found is None or found.inodes <= 2
    finally:
        ends.set()
        thread.join()


def test_a_walker_does_not_walk_each_time(tmp_path: Path) -> None:
    walker = Walker(every_s=0.2)
    assert walker.ask("a", str(tmp_path)) is None
    walker.wait(["a"], 10)
    first = walker.ask("a", str(tmp_path))
    assert first is not None and first.inodes == 1
    (tmp_path / "one").touch()
    assert walker.ask("a", str(tmp_path)) == first
    last = time.monotonic() + 10
    while walker.ask("a", str(tmp_path)) == first:
        assert time.monotonic() < last
        time.sleep(0.01)
    again = walker.ask("a", str(tmp_path))
    assert again is not None and again.inodes == 2 and again.time >= first.time + 200_000_000
    walker.keep([])
    assert walker.ask("a", str(tmp_path)) is None
