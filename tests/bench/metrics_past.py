"""What a graph of 30 days takes, of the samples as they were and of what they were rolled up to.

    python -m tests.bench.metrics_past [DAYS]

A pod of a container: 7 series, a sample each 10 s."""

from __future__ import annotations

import random
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

from pyrun.metrics.block import SECOND, encode_block
from pyrun.metrics.history import collect_history
from pyrun.metrics.rollup import LEVELS
from pyrun.metrics.samples import Series
from pyrun.metrics.store import FILE, HOUR, Keep, Store

OF = ("default", "web", "u")
COUNTERS = ("cpu_usage_seconds_total", "network_receive_bytes_total", "network_transmit_bytes_total")
TIMES = 5


def main(days: int) -> None:
    names = [Series(f"pod_{name}", *OF) for name in (*COUNTERS, "memory_working_set_bytes")]
    names += [Series(f"container_{name}", *OF, "app") for name in (COUNTERS[0], "memory_working_set_bytes")]
    names += [Series("container_fs_usage_bytes", *OF, "app")]
    with tempfile.TemporaryDirectory() as directory:
        store = Store(directory, Keep(days * 86400, 1 << 40, days * 86400))
        now = int(time.time()) * SECOND
        store.append(now, dict.fromkeys(names, 0))
        fill(store, names, now // HOUR - days * 24, now // HOUR)
        store.close()
        with sqlite3.connect(Path(directory, FILE)) as db:
            [raw] = db.execute("SELECT sum(length(data)) FROM blocks").fetchone()
            print(f"{days} days, {len(names)} series: {raw / 1e6:.1f} MB of samples")
            for level in LEVELS:
                [size] = db.execute("SELECT sum(length(data)) FROM rollups WHERE level = ?", (level,)).fetchone()
                print(f"  points of {level // SECOND} s: {size / raw:.3f} of that")
        steps = (("samples", 86400, 60), ("5 minutes", 86400 * 6, 300), ("an hour", days * 86400, 3600))
        for word, seconds, step in steps:
            print(f"  {seconds // 86400} days by {step} s, of {word}: {ms(directory, seconds, step):.1f} ms")
        with sqlite3.connect(Path(directory, FILE)) as db:
            db.execute("DELETE FROM rollups")
        print(f"  {days} days by 3600 s, of samples: {ms(directory, days * 86400, 3600):.0f} ms")


def fill(store: Store, names: list[Series], first: int, last: int) -> None:
    dice = random.Random(1)
    grown = dict.fromkeys(names, 0)
    with store._db as db:
        for hour in range(first, last):
            times = [hour * HOUR + number * 10 * SECOND + dice.randrange(3) for number in range(360)]
            for one in names:
                counter = one.name.endswith("_total")
                values = [4096 * dice.randrange(100_000, 100_064) for _ in times]
                if counter:
                    values = [grown[one] + 1000 * number + dice.randrange(200) for number in range(360)]
                    grown[one] = values[-1]
                id = store._ids[one]
                db.execute("INSERT INTO blocks VALUES (?, ?, ?)", (hour, id, encode_block(times, values)))
                for level in LEVELS:
                    store._roll(level, id, counter, times, values)


def ms(directory: str, seconds: int, step: int) -> float:
    best = 1e9
    for _ in range(TIMES):
        begun = time.process_time()
        found = collect_history(directory, OF, seconds, step)
        best = min(best, time.process_time() - begun)
    assert found["series"]
    return best * 1e3


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30)
