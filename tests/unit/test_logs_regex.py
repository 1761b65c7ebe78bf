"""An expression finds by whole chunks what it finds line by line."""

from __future__ import annotations

import random
import re

import pytest

from pyrun.logs.literal import hint_of
from pyrun.logs.query import Query


@pytest.mark.parametrize(
    ("pattern", "flags", "literal"),
    [
        (rb"needle[0-9a-f]{6}c\b", 0, b"needle"),
        (rb"needle[0-9a-f]{6}c\b", re.I, b"needle"),
        (rb"(?i)NEEDLE", 0, b"needle"),
        (rb"a(?:bc(d)e)f|x", 0, b""),
        (rb"a(?:bc(d)e)f", 0, b"abcdef"),
        (rb"ab?cd", 0, b"cd"),
        (rb"(abc)+d", 0, b"abc"),
        (rb"(abc)*d", 0, b"d"),
        (rb"^ab\b c$", 0, b"ab c"),
        (rb"a(?-i:bc)d", re.I, b"a"),
        (rb"(?=abc)d", 0, b"d"),
        (b"a # abc\n b", re.X, b"ab"),
        (rb"ab\ncde", 0, b"cde"),
        (rb"\x4e\x45", re.I, b"ne"),
        (rb".*", 0, b""),
    ],
)
def test_what_each_match_has(pattern: bytes, flags: int, literal: bytes) -> None:
    found = hint_of(re.compile(pattern, flags)).literal
    assert found == literal or (flags & re.I and found == b"")


PARTS = [
    *(b"a", b"b", b"ab", b"A", b"B", b"[ab]", b"[^a]", b"[@-_]", b"[!-~]", b".", b"\\w", b"\\S", b"\\s", b"\\W", b" "),
    *(
        b"\\b",
        b"\\B",
        b"^",
        b"$",
        b"(?:",
        b"(",
        b")",
        b"|",
        b"*",
        b"+",
        b"?",
        b"{2}",
        b"*?",
        b"*+",
        b"\\x42",
        b"\\.",
        b"\\n",
    ),
    *(b"(?-i:", b"(?=", b"(?!", b"(?<=", b"(?>", b"\\1", b"\\A", b"\\Z", b"[^\\n]", b"F", b"stdout", b"\xc3"),
]


def expressions(chance: random.Random) -> re.Pattern[bytes]:
    while True:
        text = b"".join(chance.choices(PARTS, k=chance.randrange(1, 7)))
        try:
            return re.compile(text, chance.choice((0, re.IGNORECASE)))
        except (re.error, OverflowError):
            continue


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("seed", range(3))
def test_by_chunks_is_found_what_is_found_line_by_line(seed: int) -> None:
    chance = random.Random(seed)
    found = 0
    for _ in range(1500):
        contents = [
            b"".join(chance.choices((b"a", b"b", b"A", b"B", b" ", b".", b"_", b"^", b"\xc3"), k=chance.randrange(9)))
            for _ in range(6)
        ]
        raws = [b"2026-11-27T12:00:00.000000000Z stdout F " + one for one in contents]
        chunk = b"".join(raw + b"\n" for raw in raws)
        query = Query(patterns=tuple(expressions(chance) for _ in range(chance.choice((1, 1, 2)))))
        wanted = [raw for raw, one in zip(raws, contents, strict=True) if all(p.search(one) for p in query.patterns)]
        got = [raw for raw in query.lines_of(chunk) if query.matches(raw[40:])] if query.may_be_in(chunk) else []
        assert got == wanted, query.patterns
        found += len(wanted)
    assert found > 1000


RUNS = [
    *(
        rb"[a-f]{11}\d",
        rb"\d{3}(?:\.\d{3}){3}",
        rb"[xy]+[xy]{9}\b",
        rb"(?i)[a-f]{12}",
        rb"(?:[ab]c){6}",
        rb"^[qz]{10,}$",
    ),
    *(rb"[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}", rb"q?[q]{9}", rb"[^ -~]{5}", rb"(?:[a-f]{11}|\d)x", rb"[a-f]{11}(?=\d)"),
]


@pytest.mark.parametrize("pattern", RUNS)
def test_seldom_runs_are_found_first(pattern: bytes) -> None:
    """Among many lines that have none; and where so many have one that looking for runs is no help."""
    chance = random.Random(7)
    letters = b"abcdefABCDEFqzxy0123456789-. \xc3\xa4"
    head = b"2026-11-27T12:00:00.000000000Z stdout F "
    match = re.compile(pattern)
    for filler in (3000, 0):
        contents = [b"a plain line of a program, as there are many" for _ in range(filler)]
        for _ in range(40):
            few = bytes(chance.choices(letters, k=2))
            contents.insert(chance.randrange(len(contents) + 1), bytes(chance.choices(few, k=chance.randrange(30))))
        contents += [
            b"fedcbafedcba7",
            b"FEDCBAFEDCBA7",
            b"123.456.789.012",
            b"xyxyxyxyxyxy",
            b"acbcacbcacbc",
            b"q" * 12,
        ]
        contents += [b"dead-beef-0123", b"\xc3\xa4" * 3, b"abcdefabcdef", b"7x"]
        chunk = b"".join(head + one + b"\n" for one in contents)
        query = Query(patterns=(match,))
        wanted = [head + one for one in contents if match.search(one)]
        assert query.may_be_in(chunk) and wanted
        assert [raw for raw in query.lines_of(chunk) if query.matches(raw[len(head) :])] == wanted


@pytest.mark.parametrize(
    ("pattern", "mark"),
    [
        (rb"[a-f]{11}\d", 11),
        (rb"(?:[a-f]{11}|\d)x", 0),
        (rb"[a-f]*\d", 0),
        (rb"\w{5}", 0),
        (rb"\d\b\d{5}[0-9]", 7),
        (rb"(?L)[a-f]{11}", 0),
        (rb"[a-f]{900}", 64),
    ],
)
def test_which_runs_are_seldom(pattern: bytes, mark: int) -> None:
    run = hint_of(re.compile(pattern)).run
    assert len(run.mark if run else b"") == mark
