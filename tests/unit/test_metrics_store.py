"""The past that `pyrun metrics --store` keeps: what goes in comes out, whatever happens between."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrun.errors import InvalidArgument, NotFound, PyrunError
from pyrun.metrics.block import SECOND, decode_block, decode_scrape, encode_block, encode_scrape
from pyrun.metrics.history import MOST_PODS, collect_history, collect_metric, collect_names, collect_sparks
from pyrun.metrics.past import read_history
from pyrun.metrics.rollup import decode_points, encode_points, roll, unroll
from pyrun.metrics.samples import Series, plan_points
from pyrun.metrics.store import COARSE, FILE, FINE, HOUR, Keep, Store

NODE = ("", "", "")
CPU = Series("pod_cpu_usage_seconds_total", "shop", "cart", "u")
MEMORY = Series("pod_memory_working_set_bytes", "shop", "cart", "u")
OF = ("shop", "cart", "u")
START = 500_000 * HOUR
EVER = 1 << 62
whole = st.integers(0, (1 << 62) - 1)


@given(st.lists(st.tuples(whole, whole), min_size=1, max_size=50))
def test_blocks(samples: list[tuple[int, int]]) -> None:
    times, values = [list(column) for column in zip(*samples, strict=True)]
    assert decode_block(encode_block(times, values)) == (times, values)


@given(st.dictionaries(whole, whole, max_size=50))
def test_scrapes(values: dict[int, int]) -> None:
    assert decode_scrape(encode_scrape(values)) == values


@given(st.binary(max_size=200), st.integers(0, 60), st.integers(1, 255))
@settings(max_examples=300)
def test_damaged_blocks_are_told(noise: bytes, at: int, flip: int) -> None:
    import zlib

    good = bytearray(zlib.decompress(encode_block([1, 2, 300], [5, 1 << 40, 7])))
    good[at % len(good)] ^= flip
    for data in (noise, zlib.compress(noise), zlib.compress(bytes(good)), zlib.compress(bytes(good)[: at % len(good)])):
        for decode in (decode_block, decode_scrape):
            try:
                decode(data)
            except ValueError:
                pass


def test_an_hour_takes_few_bytes() -> None:
    """Of readings that come a little early or late: a steady counter, and memory that is another each time."""
    import random

    dice = random.Random(1)
    times = [START + number * 10 * SECOND + dice.randrange(3) for number in range(360)]
    memory = [400_000_000 + 4096 * dice.randrange(64) for _ in times]
    steady = [number * 5_000 for number in range(360)]
    assert len(encode_block(times, memory)) <= 2.5 * 360
    assert len(encode_block(times, steady)) <= 1.0 * 360


def fill(store: Store, scrapes: int) -> None:
    for number in range(scrapes):
        store.append(START + number * 100 * SECOND, {CPU: number * 1_000_000, MEMORY: 1000 + number})


def test_what_is_kept_over_hours_and_starts(tmp_path: Path) -> None:
    store = Store(str(tmp_path), Keep())
    fill(store, 40)
    store.close()
    again = Store(str(tmp_path), Keep())
    again.append(START + 4000 * SECOND, {CPU: 1, MEMORY: 2})
    again.append(START + 4000 * SECOND, {CPU: 9, MEMORY: 9})
    again.append(START + 3900 * SECOND, {CPU: 9, MEMORY: 9})
    found = read_history(str(tmp_path), OF, 0, EVER)
    assert found[CPU][0] == [START + number * 100 * SECOND for number in range(41)]
    assert found[CPU][1] == [number * 1_000_000 for number in range(40)] + [1]
    assert found[MEMORY][1] == [1000 + number for number in range(40)] + [2]
    assert read_history(str(tmp_path), NODE, 0, EVER) == {}
    with sqlite3.connect(tmp_path / FILE) as db:
        assert db.execute("SELECT count(*) FROM blocks").fetchone() == (2,)
        assert db.execute("SELECT count(*) FROM scrapes").fetchone() == (5,)
    again.close()


def test_what_is_too_old_goes(tmp_path: Path) -> None:
    store = Store(str(tmp_path), Keep(seconds=2 * 3600))
    store.append(START, {Series("gone"): 1, CPU: 1})
    for hour in range(1, 6):
        store.append(START + hour * HOUR, {CPU: hour})
    assert read_history(str(tmp_path), OF, 0, EVER)[CPU][1] == [3, 4, 5]
    with sqlite3.connect(tmp_path / FILE) as db:
        assert db.execute("SELECT name FROM series").fetchall() == [(CPU.name,)]
    store.close()


def test_what_is_too_big_goes(tmp_path: Path) -> None:
    import random

    dice = random.Random(1)
    store = Store(str(tmp_path), Keep(bytes=1 << 20))
    names = [Series(f"m{number}") for number in range(500)]
    for number in range(120):
        store.append(START + number * HOUR // 4, {name: dice.randrange(1 << 60) for name in names})
    store.close()
    assert (tmp_path / FILE).stat().st_size < 2 << 20
    found = read_history(str(tmp_path), NODE, 0, EVER)[names[0]][0]
    assert found[-1] == START + 119 * HOUR // 4 and found[0] > START


def test_a_clock_that_is_set_back(tmp_path: Path) -> None:
    store = Store(str(tmp_path), Keep())
    store.append(START + 1000 * HOUR, {CPU: 1})
    store.append(START, {CPU: 2})
    store.append(START + SECOND, {CPU: 3})
    assert read_history(str(tmp_path), OF, 0, START + HOUR)[CPU][1] == [2, 3]
    store.close()


def test_a_writer_that_is_killed_loses_nothing_that_was_appended(tmp_path: Path) -> None:
    script = (
        "import os, sys; from tests.unit.test_metrics_store import *; "
        "store = Store(sys.argv[1], Keep()); fill(store, 40); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], timeout=60, check=False)
    assert done.returncode == -9
    assert len(read_history(str(tmp_path), OF, 0, EVER)[CPU][0]) == 40
    store = Store(str(tmp_path), Keep())
    store.append(START + 4000 * SECOND, {CPU: 1})
    assert len(read_history(str(tmp_path), OF, 0, EVER)[CPU][0]) == 41
    store.close()


def test_a_damaged_file_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no database at all" * 1000)
    with pytest.raises(PyrunError):
        read_history(str(tmp_path), OF, 0, EVER)
    store = Store(str(tmp_path), Keep())
    fill(store, 1)
    store.close()
    assert len(read_history(str(tmp_path), OF, 0, EVER)[CPU][0]) == 1
    assert f"{FILE}.damaged" in os.listdir(tmp_path)


def test_a_damaged_scrape_costs_itself(tmp_path: Path) -> None:
    store = Store(str(tmp_path), Keep())
    fill(store, 3)
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute("UPDATE scrapes SET data = x'00' WHERE time = ?", (START + 100 * SECOND,))
    db.close()
    store.append(START + HOUR, {CPU: 7})
    assert read_history(str(tmp_path), OF, 0, EVER)[CPU][1] == [0, 2_000_000, 7]
    store.close()


def test_a_newer_file_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(PyrunError, match="newer"):
        Store(str(tmp_path), Keep())


def test_rates() -> None:
    name = "pod_cpu_usage_seconds_total"
    times = [number * 10 * SECOND for number in range(10)]
    half = [number * 5_000_000 for number in range(10)]
    points = plan_points(name, times, half, 0, EVER, 30 * SECOND)
    assert [(time // SECOND, round(value, 6)) for time, value in points] == [(50, 0.5), (80, 0.5), (90, 0.5)]
    started = [0, 5_000_000, 10_000_000, 0, 5_000_000, 10_000_000]
    points = plan_points(name, times[:6], started, 0, EVER, 10 * SECOND)
    assert [round(value, 6) for _, value in points] == [0.5, 0.5, 0.0, 0.5, 0.5], "a restart is no negative rate"
    gap = plan_points(name, [0, 1000 * SECOND, 1010 * SECOND], [0, 1, 5_000_001], 0, EVER, 10 * SECOND)
    assert [time // SECOND for time, _ in gap] == [1010], "nothing is known of a gap"


def test_last_values() -> None:
    name = "pod_memory_working_set_bytes"
    times = [number * 10 * SECOND for number in range(7)]
    points = plan_points(name, times, list(range(7)), 10 * SECOND, 50 * SECOND, 30 * SECOND)
    assert points == [(20 * SECOND, 2.0), (50 * SECOND, 5.0)]
    assert plan_points(name, [], [], 0, EVER, 1) == plan_points(CPU.name, [], [], 0, EVER, 1) == []


def test_history_is_bounded(tmp_path: Path) -> None:
    for seconds, step in ((0, 1), (10, 0), (10, 11), (86400, 1), (1 << 40, 1 << 39), (-1, 1)):
        with pytest.raises(InvalidArgument):
            collect_history(str(tmp_path), OF, seconds, step)
    with pytest.raises(NotFound):
        collect_history(str(tmp_path), OF, 3600, 30)


samples = st.lists(st.tuples(st.integers(1, 400), st.integers(0, 1 << 40)), min_size=2, max_size=60)


@given(samples, st.integers(1, 59))
def test_a_counter_that_is_rolled_up_grows_as_it_did(steps: list[tuple[int, int]], cut: int) -> None:
    """Whatever is sealed at once, and over restarts."""
    times = [START + sum(gap for gap, _ in steps[: at + 1]) * SECOND for at in range(len(steps))]
    values = [value for _, value in steps]
    whole = roll(FINE, times, values, counter=True, before=None)
    first = roll(FINE, times[:cut], values[:cut], counter=True, before=None)
    rest = roll(FINE, times[cut:], values[cut:], counter=True, before=first[-1])
    assert sum(one.more for one in whole) == sum(one.more for one in (*first, *rest))
    assert sum(one.more for one in whole) == sum(
        after - before if after >= before else after for before, after in zip(values, values[1:], strict=False)
    )
    assert decode_points(encode_points(whole)) == whole
    told_times, told = unroll(whole, counter=True)
    assert told[-1] == values[-1] and told_times[-1] == times[-1] and told == sorted(told)


def fill_days(directory: Path, keep: Keep, days: int) -> None:
    """Each three minutes a reading, until this hour began; each day the counter begins anew."""
    now = int(time.time()) // 3600 * 3600 * SECOND
    store = Store(str(directory), keep)
    for number in range(days * 480):
        at = now - (days * 480 - number) * 180 * SECOND
        store.append(at, {CPU: number % 480 * 90_000_000, MEMORY: 1000 + (5000 if number % 20 == 7 else number % 3)})
    store.append(now, {CPU: 90_000_000, MEMORY: 1})
    store.close()


def test_old_hours_are_rolled_up(tmp_path: Path) -> None:
    fill_days(tmp_path, Keep(seconds=6 * 3600, rolled=40 * 86400), 2)
    path = str(tmp_path)
    with sqlite3.connect(tmp_path / FILE) as db:
        assert db.execute("SELECT count(DISTINCT hour) FROM blocks").fetchone()[0] <= 6
        assert db.execute("SELECT count(DISTINCT level) FROM rollups").fetchone() == (2,)
    for seconds, step in ((47 * 3600, 3600), (47 * 3600, 300), (47 * 3600, 180), (3 * 3600, 60)):
        found = {one["name"]: one["points"] for one in collect_history(path, OF, seconds, step)["series"]}
        rates = [value for _, value in found[CPU.name]]
        assert len(rates) >= 46 * 3600 // max(step, 300) - 2 if seconds > 3 * 3600 else rates, (seconds, step)
        # A restart costs what was between two readings.
        assert sorted(rates)[len(rates) // 2] == 0.5 and min(rates) >= 0 and max(rates) <= 0.51, (seconds, step)
        times = [at for at, _ in found[MEMORY.name]]
        assert times == sorted(times)
    # Peaks are kept.
    hours = {one["name"]: one["points"] for one in collect_history(path, OF, 47 * 3600, 3600)["series"]}
    assert [value for _, value in hours[MEMORY.name]][1:-1] == [6000.0] * (len(hours[MEMORY.name]) - 2), (
        "peaks are kept"
    )
    found = collect_metric(path, CPU.name, ("sho", "cart", ""), 47 * 3600, 3600)
    assert found["count"] == 1 and found["series"][0]["pod"] == "cart"
    assert collect_metric(path, CPU.name, ("", "web", ""), 3600, 60)["series"] == []
    assert collect_names(path)["names"] == sorted([CPU.name, MEMORY.name])


def test_what_is_rolled_up_goes_when_all_is_too_big(tmp_path: Path) -> None:
    fill_days(tmp_path, Keep(rolled=40 * 86400, bytes=60_000), 2)
    with sqlite3.connect(tmp_path / FILE) as db:
        assert db.execute("SELECT count(*) FROM rollups WHERE level = ?", (COARSE,)).fetchone()[0] >= 2
        assert db.execute("SELECT count(DISTINCT hour) FROM blocks").fetchone()[0] <= 49
    store = Store(str(tmp_path), Keep(rolled=40 * 86400, bytes=1))
    store.append(int(time.time() + 3600) * SECOND, {CPU: 1})
    store.close()
    with sqlite3.connect(tmp_path / FILE) as db:
        assert db.execute("SELECT count(*) FROM rollups").fetchone() == (0,)


def test_a_file_of_the_version_before(tmp_path: Path) -> None:
    """Its hours are read as they are; what is sealed from now on is rolled up."""
    fill_days(tmp_path, Keep(), 1)
    with sqlite3.connect(tmp_path / FILE) as db:
        db.executescript("DROP TABLE rollups; PRAGMA user_version = 1;")
    db.close()
    path = str(tmp_path)
    before = collect_history(path, OF, 20 * 3600, 600)["series"]
    store = Store(path, Keep(rolled=40 * 86400))
    store.append(int(time.time() + 3600) * SECOND, {CPU: 30_000_001, MEMORY: 1})
    store.close()
    after = collect_history(path, OF, 20 * 3600, 600)["series"]
    assert [len(one["points"]) for one in after] == [len(one["points"]) for one in before] and len(before) == 2


def test_sparks_of_several_pods(tmp_path: Path) -> None:
    """A little of each at once: over an hour of which a part is sealed, a point a step, of those asked for alone."""
    store, now = Store(str(tmp_path), Keep()), int(time.time())
    for number in range(140):
        samples = {}
        for pod in range(3):
            own = ("shop", f"web-{pod}", f"uid-{pod}")
            samples[Series("pod_cpu_usage_seconds_total", *own)] = number * 30 * (pod + 1) * 1000
            samples[Series("pod_memory_working_set_bytes", *own)] = 1000 * pod + number
            samples[Series("pod_network_receive_bytes_total", *own)] = number
        store.append((now - (140 - number) * 30) * 100, samples)
    store.close()
    found = collect_sparks(str(tmp_path), ["uid-0", "uid-2", "uid-9"], 3600, 120)
    assert found["until"] - found["since"] == 3600 and set(found["pods"]) == {"uid-0", "uid-2"}
    for uid, pod in (("uid-0", 0), ("uid-2", 2)):
        cpu, memory = (found["pods"][uid][field] for field in ("cpu", "memory"))
        assert set(found["pods"][uid]) == {"cpu", "memory"}
        assert 29 <= len(cpu) <= 31 and {value for _, value in cpu} == {0.001 * (pod + 1)}
        assert 29 <= len(memory) <= 31 and all(1000 * pod + 10 < value < 1000 * pod + 140 for _, value in memory)
        assert [value for _, value in memory] == sorted(value for _, value in memory)
        assert all(found["since"] <= at <= found["until"] for at, _ in cpu + memory)
    for uids in ([], ["u"] * (MOST_PODS + 1)):
        with pytest.raises(InvalidArgument):
            collect_sparks(str(tmp_path), uids, 3600, 120)
