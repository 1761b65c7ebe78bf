"""A log by pages, from its end: each line is on one of them, however many have one time, over rotations."""

from __future__ import annotations

import gzip
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pyrun.dashboard import lines
from pyrun.dashboard.lines import parse_asked, search
from pyrun.errors import InvalidArgument
from pyrun.logs.line import SECOND
from pyrun.logs.show import time_text
from pyrun.logs.tree import Logs

BEGUN = 1_795_000_000 * SECOND
TRACE = ["Traceback (most recent call last):", '  File "x.py", line 3, in f', "KeyError: 'unheard'"]


def question(**fields: Any) -> dict[str, Any]:
    return {"of": ["shop", "web", "u1", "app"], "words": [], "stream": "", "lines": 100} | fields


def pages(logs: Path, **fields: Any) -> list[str]:
    """All lines, as a page gets them that is scrolled back: what it has of the oldest time comes again."""
    size, held, until = 400, 0, ""
    found: list[dict[str, Any]] = []
    while True:
        got = search(Logs(str(logs)), parse_asked(question(lines=size + held, until=until, **fields), fewest=1))
        older = got[: len(got) - held]
        assert not held or got[len(got) - held :] == found[:held]
        if not older:
            return [one["line"] for one in found]
        found = older + found
        until = found[0]["time"]
        held = sum(one["time"] == until for one in found)


@pytest.mark.parametrize("step", [1, 40 * SECOND])
def test_pages(tmp_path: Path, step: int) -> None:
    """step: nanoseconds from each time to the next one: all within the slack of a seek, or far from each other."""
    directory = tmp_path / "shop_web_u1" / "app"
    directory.mkdir(parents=True)
    texts = [f"line {number} {'x' * 700}" for number in range(3000)]
    raws = [f"{time_text(BEGUN + number // 7 * step)} stdout F {text}\n" for number, text in enumerate(texts)]
    (directory / "0.log.20261127-100000.gz").write_bytes(gzip.compress("".join(raws[:500]).encode()))
    (directory / "0.log.20261127-110000").write_text("".join(raws[500:1000]))
    (directory / "0.log").write_text("".join(raws[1000:]))
    assert pages(tmp_path) == texts
    assert pages(tmp_path, words=["line 27"]) == [text for text in texts if "line 27" in text]


def test_pages_of_entries(tmp_path: Path) -> None:
    """What belongs together is on one page, also where the other stream writes in between."""
    directory = tmp_path / "shop_web_u1" / "app"
    directory.mkdir(parents=True)
    raws, texts = [], []
    for number in range(600):
        at = BEGUN + number * SECOND // 2
        entry = [f"request {number} failed", *TRACE]
        texts += ["\n".join(entry), f"other {number} unheard"]
        raws += [f"{time_text(at)} stderr F {entry[0]}\n", f"{time_text(at)} stdout F {texts[-1]}\n"]
        raws += [f"{time_text(at + place)} stderr F {text}\n" for place, text in enumerate(TRACE)]
    (directory / "0.log").write_text("".join(raws))
    assert pages(tmp_path, entries=True) == texts
    assert pages(tmp_path, entries=True, words=["unheard"]) == texts
    assert pages(tmp_path, words=["unheard"], stream="stderr") == [TRACE[-1]] * 600


@pytest.mark.parametrize("entries", [False, True])
def test_long_lines_are_on_more_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entries: bool) -> None:
    """A pod writes what it likes, and what is held of it is bounded: of one container no less than of the others."""
    monkeypatch.setattr(lines, "MOST_BYTES", 16 << 10)
    texts = []
    for name, length, every in (("app", 700, 1), ("side", 10, 3)):
        directory = tmp_path / "shop_web_u1" / name
        directory.mkdir(parents=True)
        own = [(BEGUN + number * SECOND, f"{name} {number} {'x' * length}") for number in range(0, 300, every)]
        texts += own
        (directory / "0.log").write_text("".join(f"{time_text(time)} stdout F {text}\n" for time, text in own))
    of = ["shop", "web", "u1", ""]
    first = search(Logs(str(tmp_path)), parse_asked(question(of=of, entries=entries), fewest=1))
    assert sum(len(one["line"]) for one in first) < 20 << 10
    assert pages(tmp_path, of=of, entries=entries) == [text for _, text in sorted(texts)]


@pytest.mark.parametrize("why", ["it may not have started yet", "nothing more was found in -1 s"])
def test_what_comes_is_followed_also_where_nothing_can_be_said_of_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    monkeypatch.setattr(lines, "SEARCH_S", -1)
    directory = tmp_path / "shop_web_u1" / "app"
    if "found" in why:
        directory.mkdir(parents=True)
        (directory / "0.log").write_text(f"{time_text(BEGUN)} stdout F old\n")
    told: list[dict[str, Any]] = []
    last = time.monotonic() + 60

    def put(value: dict[str, Any]) -> None:
        told.append(value)
        if len(told) == 1:
            directory.mkdir(parents=True, exist_ok=True)
            with (directory / "0.log").open("a") as file:
                file.write(f"{time_text(BEGUN + SECOND)} stdout F new\n")

    def is_closed(wait: float) -> bool:
        assert time.monotonic() < last, told
        return len(told) > 1

    asked = parse_asked(question(), fewest=0)
    logs = Logs(str(tmp_path))
    lines.follow(logs, asked, put, is_closed, partial(search, logs))
    assert why in told[0]["told"] and [one["line"] for one in told[1]["lines"]] == ["new"]


@pytest.mark.parametrize("name", ["until", "since"])
@pytest.mark.parametrize("time", ["yesterday", "2026-11-27", "1795000000"])
def test_a_time_that_is_none(name: str, time: str) -> None:
    with pytest.raises(InvalidArgument, match=name):
        parse_asked(question(**{name: time}), fewest=1)


def test_the_first_lines_from_a_time_on(tmp_path: Path) -> None:
    """What comes after one that was found: over rotations and attempts, and of several containers none is left out."""
    of = ["shop", "web", "u1", ""]
    texts = []
    for name, every in (("app", 1), ("side", 7)):
        directory = tmp_path / "shop_web_u1" / name
        directory.mkdir(parents=True)
        own = [(BEGUN + number * SECOND, f"{name} {number}") for number in range(0, 900, every)]
        raws = [f"{time_text(time)} stdout F {text}\n" for time, text in own]
        (directory / "0.log.20261127-100000.gz").write_bytes(gzip.compress("".join(raws[:100]).encode()))
        (directory / "0.log").write_text("".join(raws[100:200]))
        (directory / "1.log").write_text("".join(raws[200:]))
        texts += own
    since = time_text(BEGUN + 150 * SECOND)

    def first(lines: int, since: str, **fields: Any) -> list[str]:
        asked = parse_asked(question(lines=lines, since=since, **fields), fewest=1)
        return [one["line"] for one in search(Logs(str(tmp_path)), asked)]

    assert first(200, since) == [f"app {number}" for number in range(150, 350)]
    assert first(200, since, of=of) == [text for time, text in sorted(texts) if time >= BEGUN + 150 * SECOND][:200]
    assert first(10, since, words=["app 89"]) == [f"app {number}" for number in range(890, 900)]
    assert first(10, time_text(BEGUN + 900 * SECOND)) == []
    with pytest.raises(InvalidArgument, match="since"):
        first(10, since, entries=True)
