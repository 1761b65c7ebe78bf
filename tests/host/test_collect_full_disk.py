"""A full disk below what `pyrun collect` keeps: logs stay as they are, what has to be given up is counted, and when
there is room again all goes on."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyrun.logs.query import Query
from pyrun.logs.read import read_container
from pyrun.logs.seal import Sealer
from pyrun.logs.show import time_text
from pyrun.logs.store import Keep, LogStore, read_status
from pyrun.logs.tree import collect_containers
from tests.support.container.disk import unmount

LINES = 2000
NOW = time.time_ns() - 3600 * 10**9


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "store"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", path], check=True)
    yield path
    unmount(path)


def write(path: Path, mark: str, begin: int) -> None:
    """Lines that hardly shrink, of an hour ago, by somebody who is done."""
    texts = (f"{time_text(NOW + number)} stdout F {mark} {number} {secrets.token_hex(32)}\n" for number in range(LINES))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(texts))
    os.utime(path, (begin, begin))


def fill(directory: Path) -> Path:
    path = directory / "filler"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return path


def rows_of(store: Path) -> list[dict[str, Any]]:
    found = read_status(str(store))["dropped"]
    assert isinstance(found, list)
    return found


def marks(logs: Path, store: Path) -> list[str]:
    found = [
        line.content.split()[0].decode()
        for one in collect_containers(str(logs), str(store))
        for line in read_container(one, Query())
    ]
    assert all(found.count(mark) == LINES for mark in found[::LINES])
    return sorted(set(found))


def test_a_full_disk_loses_no_log_and_ends_nothing(tmp_path: Path, store: Path) -> None:
    logs, old = tmp_path / "logs", int(time.time()) - 600
    for pod in ("shop_kept_u1", "shop_gone_u2"):
        write(logs / pod / "app" / "0.log.20261127-100000", f"{pod}-rotated", old)
        write(logs / pod / "app" / "0.log", f"{pod}-live", old)
    said: list[str] = []
    kept = LogStore(str(store), Keep())
    sealer = Sealer(str(logs), kept, said.append)
    filler = fill(store)
    for _ in range(2):
        assert sealer.look() == 0
    assert len(said) == 4 and all("can't be sealed: no space left" in one.lower() for one in said)
    everything = [f"{pod}-{kind}" for pod in ("shop_gone_u2", "shop_kept_u1") for kind in ("live", "rotated")]
    assert marks(logs, store) == everything

    # A pod is removed: its files take room that others need more, so they are let go, and counted once that can be.
    shutil.rmtree(logs / "shop_gone_u2")
    assert sealer.look() == 2
    filler.unlink()
    assert sealer.look() == 1
    assert marks(logs, store) == ["shop_kept_u1-live", "shop_kept_u1-rotated"]
    [dropped] = rows_of(store)
    assert (dropped["why"], dropped["pod"], dropped["lines"]) == ("disk full", "gone", 2 * LINES)
    assert read_status(str(store))["counters"]["sealed_lines"] == LINES  # type: ignore[index]
    sealer.close()
    kept.close()


def test_what_is_too_much_goes_where_the_disk_is_full(tmp_path: Path, store: Path) -> None:
    """It makes the room in which it is written down."""
    logs, old = tmp_path / "logs", int(time.time()) - 600
    for number in range(3):
        write(logs / "shop_cart_u1" / "app" / f"0.log.20261127-10000{number}", f"rotated-{number}", old)
    write(logs / "shop_cart_u1" / "app" / "0.log", "live", old)
    said: list[str] = []
    kept = LogStore(str(store), Keep(bytes=100_000))
    sealer = Sealer(str(logs), kept, said.append)
    assert sealer.look() == 3 and not said
    fill(store)
    assert kept.drop_old() == 2
    sealer.close()
    kept.close()
    assert marks(logs, store) == ["live", "rotated-2"]
    [dropped] = rows_of(store)
    assert (dropped["why"], dropped["pod"], dropped["lines"]) == ("bytes", "cart", 2 * LINES)
