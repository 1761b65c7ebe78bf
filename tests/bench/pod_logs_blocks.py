"""Logs in blocks: how fast they are sealed, how small they become, and how long it takes to find something in them.

    python -m tests.bench.pod_logs_blocks [MEGABYTES]

Lines are an access log, JSON and klog, in files of 10 MB; nothing needs root. CPU seconds of this process, best of
three for what is looked for; the files are in the page cache. A rare word is in one line of all.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pyrun.logs.line import SECOND
from pyrun.logs.query import Query, parse_words
from pyrun.logs.read import read, tail
from pyrun.logs.seal import Sealer
from pyrun.logs.show import time_text
from pyrun.logs.store import Keep, LogStore
from pyrun.logs.tree import Container, collect_containers

FILE_BYTES = 10 << 20
RARE = "needle7f3a9c"
ROUNDS = 3


def lines() -> Iterator[str]:
    """For ever, some milliseconds apart."""
    dice = random.Random(1)
    at = 1_764_000_000 * SECOND
    while True:
        at += dice.randrange(1000, 4_000_000)
        yield f"{time_text(at)} stdout F {one_of(dice)}\n"


def one_of(dice: random.Random) -> str:
    kind = dice.random()
    if kind < 0.5:
        address = f"10.{dice.randrange(4)}.{dice.randrange(256)}.{dice.randrange(256)}"
        request = f'"GET /api/v1/items/{dice.randrange(100_000)} HTTP/1.1" {dice.choice((200, 200, 200, 404, 500))}'
        return f'{address} - - [27/Nov/2026:12:00:00 +0000] {request} {dice.randrange(9999)} "-" "Mozilla/5.0"'
    if kind < 0.8:
        fields = f'"id":"{dice.getrandbits(64):016x}","ms":{dice.randrange(1000)},"user":"u{dice.randrange(5000)}"'
        return f'{{"level":"info","msg":"request done",{fields}}}'
    place = f"controller.go:{dice.randrange(900)}"
    return f"I1127 12:00:00.{dice.randrange(10**6):06d}       1 {place}] Syncing pod default/web-{dice.randrange(100)}"


def write(directory: Path, size: int) -> int:
    """Rotated files of this size together, and a live one; the size that they have."""
    directory.mkdir(parents=True)
    source, total, number = lines(), 0, 0
    while total < size:
        with (directory / f"0.log.20261127-{number:06d}").open("w") as file:
            while file.tell() < min(FILE_BYTES, size - total):
                file.writelines(next(source) for _ in range(1000))
            if total <= size // 2 < total + FILE_BYTES:
                file.write(next(source).replace(" F ", f" F {RARE} "))
            total += file.tell()
        number += 1
    (directory / "0.log").write_text(next(source))
    return total


def cpu(work: Callable[[], object]) -> float:
    before = time.process_time()
    work()
    return time.process_time() - before


def found(containers: list[Container], query: Query) -> int:
    return sum(1 for _ in read(containers, query))


def main() -> None:
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    with tempfile.TemporaryDirectory() as directory:
        root, kept = Path(directory, "logs"), Path(directory, "store")
        kept.mkdir()
        size = write(root / "bench_pod_uid" / "app", megabytes << 20)
        store = LogStore(str(kept), Keep())
        sealer = Sealer(str(root), store, print)
        took = cpu(sealer.look)
        sealer.close()
        store.close()
        blocks = sum(os.path.getsize(path) for path in kept.rglob("*.zst"))
        print(f"sealed      {size / took / 1e6:8.0f} MB/s CPU   {blocks / size:.3f} of {size / 1e6:.0f} MB")
        containers = collect_containers(str(root), str(kept))
        asked: dict[str, Callable[[], object]] = {
            "whole rare word": lambda: found(containers, parse_words((RARE,), regex=False, whole=True)),
            "rare word": lambda: found(containers, parse_words((RARE,), regex=False)),
            "regex": lambda: found(containers, parse_words((r"needle[0-9a-f]{6}c\b",), regex=True)),
            "regex of no word": lambda: found(containers, parse_words((r"[a-f]{11}\d",), regex=True)),
            "newest 100 of a common word": lambda: tail(containers[0], parse_words(("syncing",), regex=False), 100),
        }
        for name, ask in asked.items():
            best = min(cpu(ask) for _ in range(ROUNDS))
            print(f"{name:<28} {best * 1000:8.1f} ms   {best * 1e12 / size:8.0f} ms a GB")


if __name__ == "__main__":
    main()
