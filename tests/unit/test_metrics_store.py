"""The past that `pyrun metrics --store` keeps: what goes in comes out, whatever happens between."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrun.errors import InvalidArgument, NotFound, PyrunError
from pyrun.metrics.block import SECOND, decode_block, decode_scrape, encode_block, encode_scrape
from pyrun.metrics.history import collect_history
from pyrun.metrics.samples import Series, plan_points
from pyrun.metrics.store import FILE, HOUR, Keep, Store, read_history

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
