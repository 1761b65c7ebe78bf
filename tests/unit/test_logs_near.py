"""What is shown with a line that was found: the entry that it is of, and entries around it; by any way the same."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pyrun.logs.around import Near, Shown
from pyrun.logs.entry import MOST_LINES, Entries, Rule
from pyrun.logs.line import SECOND, Line
from pyrun.logs.query import Query, parse_pattern, parse_words
from pyrun.logs.read import read_container, read_near, tail_entries
from pyrun.logs.seal import Sealer
from pyrun.logs.store import Keep, LogStore
from pyrun.logs.tree import Container, collect_containers
from tests.unit.test_logs import START, container, raw

JAVA = """ERROR cart failed
java.lang.IllegalStateException: no item
\tat shop.Cart.add(Cart.java:31)
Caused by: java.io.IOException: gone
\tat shop.Store.read(Store.java:7)
\t... 12 more"""
PYTHON = """ERROR:root:cart failed
Traceback (most recent call last):
  File "cart.py", line 3, in add
    raise KeyError(1)
KeyError: 1

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "cart.py", line 5, in add
    raise ValueError
ValueError"""
GO = """panic: cart failed

goroutine 1 [running]:
main.(*Cart).add(0x1)
\t/src/cart.go:31 +0x1d
exit status 2"""
NODE = """TypeError: cart is undefined
    at add (/srv/cart.js:31:7)
    at node:internal/main:28:49"""


def entries_of(lines: list[Line], rule: Rule | None, query: Query | None = None) -> list[tuple[Line, bool]]:
    made = Entries(rule)
    found = [one for line in lines for one in made.add(line, hit=query is None or query.matches(line.content))]
    return [(one.line(), one.hit) for one in [*found, *made.rest()]]


def as_lines(text: str, *, apart: float = 0.0) -> list[Line]:
    return [
        Line(START + int(number * apart * SECOND), "stdout", one.encode())
        for number, one in enumerate(text.split("\n"))
    ]


@pytest.mark.parametrize("trace", [JAVA, PYTHON, GO, NODE])
def test_a_stack_trace_is_one_entry(trace: str) -> None:
    found = entries_of(as_lines(f"before\n{trace}\nlistening: 8080 is the port\n{trace}\nafter it"), Rule())
    told = [line.content.decode() for line, _ in found]
    assert told == ["before", trace, "listening: 8080 is the port", trace, "after it"]


def test_what_comes_later_or_on_the_other_stream_is_another_entry() -> None:
    assert len(entries_of(as_lines(JAVA, apart=1.5), Rule())) == 6
    lines = [
        Line(START, "stdout", b"one"),
        Line(START, "stderr", b"two"),
        Line(START, "stdout", b"  of one"),
        Line(START, "stderr", b"  of two"),
    ]
    assert [one.content for one, _ in entries_of(lines, Rule())] == [b"one\n  of one", b"two\n  of two"]


def test_an_entry_is_bounded() -> None:
    lines = [Line(START, "stdout", b" x")] * (2 * MOST_LINES + 1)
    assert [one.content.count(b"\n") + 1 for one, _ in entries_of(lines, Rule())] == [MOST_LINES, MOST_LINES, 1]


def test_entries_that_begin_as_one_says() -> None:
    rule = Rule(parse_pattern(r"^\d+ ", "--begins"))
    found = entries_of(as_lines("1 one\nof one\n  of one\n2 two\nof two"), rule)
    assert [one.content for one, _ in found] == [b"1 one\nof one\n  of one", b"2 two\nof two"]


WORDS = ("plain", "needle", "x" * 400, "info: ready", "ValueError: needle")


def written(root: Path, seed: int) -> Container:
    """Traces and lines on both streams, in pieces as well, over files of which some are sealed then."""
    chance = random.Random(seed)
    one = container(root)
    at = 0.0
    for number in range(5):
        data = bytearray()
        for _ in range(chance.choice((3, 200))):
            at += chance.choice((0, 0.001, 0.5, 1.2))
            text = chance.choice((*WORDS[:4] * 4, JAVA, PYTHON, GO)).replace("cart", chance.choice(("cart", "x" * 30)))
            stream = chance.choice(("stdout", "stdout", "stderr"))
            for line in text.split("\n"):
                if chance.random() < 0.001:
                    data += raw(at, line[:4], stream=stream, tag="P") + raw(at, line[4:], stream=stream)
                else:
                    data += raw(at, line, stream=stream)
                if chance.random() < 0.05:
                    data += raw(at, "between", stream="stderr" if stream == "stdout" else "stdout")
        Path(one.directory, f"0.log.20261127-12000{number}" if number < 4 else "0.log").write_bytes(data)
    return one


def expected(lines: list[Line], query: Query, near: Near) -> list[tuple[Line, bool]]:
    found = entries_of([line for line in lines if query.is_of(line)], near.rule, query)
    hits = [number for number, (_, hit) in enumerate(found) if hit]
    wanted = {one for hit in hits for one in range(hit - near.before, hit + near.after + 1)}
    return [one for number, one in enumerate(found) if number in wanted]


QUERIES = [
    parse_words(("needle",), regex=False),
    parse_words(("cart.py",), regex=False, whole=True),
    parse_words(("raise", "key"), regex=False),
    parse_words((r"store\.java:\d",), regex=True),
    parse_words((r"^\s+at .*7\)$",), regex=True),
    parse_words(("nothing",), regex=False),
    parse_words(("between",), regex=False),
    Query(),
]


@pytest.mark.parametrize("seed", range(2))
def test_what_is_found_fast_is_what_a_slow_look_finds(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyrun.logs.block.FRAME", 1 << 14)
    monkeypatch.setattr("pyrun.logs.files.CHUNK", 1 << 15)
    chance = random.Random(seed)
    logs, kept = tmp_path / "logs", tmp_path / "store"
    kept.mkdir()
    one = written(logs, seed)
    store = LogStore(str(kept), Keep())
    for sealed in (False, True):
        if sealed:
            sealer = Sealer(str(logs), store, print)
            assert sealer.look() == 4
            sealer.close()
            [one] = collect_containers(str(logs), str(kept))
        lines = list(read_container(one, Query()))
        for query in QUERIES:
            bounds = sorted(chance.choice(lines).time for _ in range(2))
            between = replace(query, since=bounds[0], until=bounds[1])
            for near in (
                Near(),
                Near(Rule()),
                Near(None, 2, 0),
                Near(Rule(), 0, 3),
                Near(Rule(), 2, 1),
                Near(Rule(), 40, 40),
            ):
                asked = chance.choice((query, query, replace(query, stream="stderr"), between))
                found = list(read_near([one], asked, near))
                wanted = expected(lines, asked, near)
                assert [(shown.line, shown.hit) for _, shown in found] == wanted, (sealed, asked, near)
            hits = [line for line, hit in expected(lines, query, Near(Rule())) if hit]
            for number in (0, 1, 30):
                last = tail_entries(one, query, number, Rule())
                assert last == sorted(hits, key=lambda line: line.time)[max(0, len(hits) - number) :], (sealed, query)
    store.close()


def apart(found: list[tuple[Container, Shown]]) -> str:
    return "".join(("/" if shown.apart else "") + shown.line.content.decode() for _, shown in found)


def test_what_is_apart_is_told_and_what_is_near_stays_together(tmp_path: Path) -> None:
    for number, pod in enumerate(("shop_a_1", "shop_b_2")):
        text = "ab!cdefg!h" if number else "AB!CDEFG!H"
        lines = (raw(index + number / 2, character) for index, character in enumerate(text))
        Path(container(tmp_path, pod=pod).directory, "0.log").write_bytes(b"".join(lines))
    found = list(read_near(collect_containers(str(tmp_path)), parse_words(("!",), regex=False), Near(None, 1, 1)))
    assert apart(found) == "/B!C/b!c/G!H/g!h"
    found = list(read_near(collect_containers(str(tmp_path)), parse_words(("!",), regex=False), Near(None, 3, 3)))
    assert apart(found) == "/AB!CDEFG!H/ab!cdefg!h"


def run(root: Path, *argv: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "pyrun", "logs", "--dir", str(root), *argv],
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    return done.returncode, done.stdout, done.stderr


def test_the_command_shows_whole_entries_and_context(tmp_path: Path) -> None:
    one = container(tmp_path)
    texts = ["one", *JAVA.split("\n"), "two", "three", "four", "five", "six needle"]
    Path(one.directory, "0.log").write_bytes(b"".join(raw(number / 100, text) for number, text in enumerate(texts)))
    assert run(tmp_path, "Store.java") == (0, JAVA + "\n", "")
    assert run(tmp_path, "--no-join", "Store.java")[1] == "\tat shop.Store.read(Store.java:7)\n"
    assert run(tmp_path, "-A", "1", "-B=1", "-e", "Store.java|needle")[1] == f"one\n{JAVA}\ntwo\n--\nfive\nsix needle\n"
    assert run(tmp_path, "-C", "1", "needle", "--format", "json")[1].count('"context":true') == 1
    assert run(tmp_path, "--tail", "6")[1] == "\n".join([JAVA, *texts[7:]]) + "\n"
    assert run(tmp_path, "--begins", "o", "five")[1] == "four\nfive\nsix needle\n"
    for argv, said in (
        (("-C", "1"), "nothing that is looked for"),
        (("-C", "1", "--tail", "3", "one"), "only one of them"),
        (("-A", "1001", "one"), "not from 0 to 1000"),
        (("--begins", "("), "--begins: '\\(' is no regular expression"),
        (("--no-join", "--begins", "x"), "only one of them"),
    ):
        code, _, error = run(tmp_path, *argv)
        assert code not in (0, 1) or error, argv
        assert said.replace("\\", "") in error, (argv, error)
