"""Sealed logs: what was written comes out of blocks as it comes out of files, whatever is asked and whenever a kill
comes."""

from __future__ import annotations

import gzip
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrun.logs.block import FRAME, Block, Tokens, filter_of, write_block
from pyrun.logs.follow import Follower
from pyrun.logs.query import Query, Where, parse_words
from pyrun.logs.read import read, tail
from pyrun.logs.seal import Sealer
from pyrun.logs.store import Keep, LogStore, Sealed, plan_drops, read_status
from pyrun.logs.tree import Container, collect_containers

from .test_logs import START, container, raw

STAMPS = ("20261127-120000", "20261127-120001", "20261127-120002")


def seal(root: Path, store: Path, keep: Keep | None = None) -> int:
    """A collector that looks once."""
    made = LogStore(str(store), keep or Keep())
    warned: list[str] = []
    sealer = Sealer(str(root), made, warned.append)
    try:
        return sealer.look()
    finally:
        sealer.close()
        made.close()
        assert not warned


@pytest.fixture
def tree(tmp_path: Path) -> tuple[Path, Path]:
    """The logs, and the store."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "store").mkdir()
    return tmp_path / "logs", tmp_path / "store"


def wait_for(holds: Callable[[], bool], what: str) -> None:
    last = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < last, f"{what}: not within a minute"
        time.sleep(0.05)


def start_collector(argv: Sequence[str]) -> subprocess.Popen[bytes]:
    """A `pyrun collect` that ends when SIGTERM asks for it: before it has a handler it would be killed by that."""
    made = subprocess.Popen(argv, stderr=subprocess.DEVNULL)

    def has_handler() -> bool:
        assert made.poll() is None, f"the collector has ended with {made.returncode}"
        [caught] = [row for row in Path(f"/proc/{made.pid}/status").read_text().splitlines() if row[:7] == "SigCgt:"]
        return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)

    try:
        wait_for(has_handler, "the collector is up")
    except BaseException:
        made.kill()
        made.wait()
        raise
    return made


def both(tree: tuple[Path, Path]) -> list[Container]:
    return collect_containers(str(tree[0]), str(tree[1]))


def contents(tree: tuple[Path, Path], query: Query | None = None) -> list[bytes]:
    return [line.content for _, line in read(both(tree), query or Query())]


def a_block(path: Path, data: bytes) -> Block:
    source = path.with_suffix(".raw")
    source.write_bytes(data)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    with source.open("rb", buffering=0) as file:
        about = write_block(file.read, (1, 2), fd)
    assert (about.size, about.original) == (len(data), (1, 2))
    return Block(fd)


def many_lines(count: int, seed: int = 1) -> bytes:
    dice = random.Random(seed)
    lines = []
    for number in range(count):
        text = f"{number} {dice.choice(['alpha', 'Beta', 'gamma-delta'])} {dice.getrandbits(64):016x}"
        lines.append(raw(number / 100, text, stream=dice.choice(["stdout", "stderr"]), tag=dice.choice("FFFFFFP")))
    return b"".join(lines)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        raw(0, "one"),
        raw(0, "without its end")[:-1],
        b"no line of the format\n\n\0\xff",
        many_lines(12_000),
        raw(0, "x" * 3 * FRAME) + raw(1, "y"),
        b"z" * (9 << 20),
    ],
    ids=["empty", "one", "cut", "other", "many", "long", "endless"],
)
def test_a_block_gives_back_what_went_in(tmp_path: Path, data: bytes) -> None:
    block = a_block(tmp_path / "block", data)
    assert b"".join(block.read(frame) for frame in block.frames) == data
    assert block.about.lines == len(data.removesuffix(b"\n").split(b"\n")) * (data != b"")
    block.close()
    assert subprocess.run(["zstd", "-dc", tmp_path / "block"], capture_output=True, check=True).stdout == data


words = st.text("abAB01_-. é", min_size=1, max_size=12)


@given(st.lists(words, min_size=1, max_size=30), words)
@settings(max_examples=200)
def test_a_filter_never_denies_a_word_that_is_there(lines: list[str], asked: str) -> None:
    made = filter_of("\n".join(lines).encode(), 64)
    for query in (parse_words((asked,), regex=False), parse_words((asked,), regex=False, whole=True)):
        if any(query.matches(line.encode()) for line in lines):
            assert all(made[at] & bits == bits for at, bits in Tokens(query.tokens()).bits(64))


ASKED = [
    "a",
    "ab",
    "A_",
    ". ",
    "",
    "[^a]b",
    "a.*b",
    "b$",
    "^a",
    r"\bab\b",
    "(?=b)",
    "x*",
    r"a\s",
    r"\[^a",
    "a|1",
    r"1\Z",
]


@given(st.lists(st.text("abAB1_.[ é", max_size=8), min_size=1, max_size=20), st.sampled_from(ASKED), st.booleans())
@settings(max_examples=400)
def test_many_lines_at_once_are_searched_as_each_is(lines: list[str], asked: str, regex: bool) -> None:
    query = parse_words((asked,), regex=regex)
    chunk = b"".join(raw(0, line) for line in lines)
    found = [line for line in query.lines_of(chunk) if query.matches(line.split(b" ", 3)[3])]
    assert found == [line for line in chunk.splitlines() if query.matches(line.split(b" ", 3)[3])]


def test_a_rare_word_is_in_few_frames(tmp_path: Path) -> None:
    block = a_block(tmp_path / "block", many_lines(40_000).replace(b" P ", b" F "))
    word = block.read(block.frames[3]).splitlines()[5].rsplit(b" ", 1)[1]
    found = [frame for frame in block.frames if block.may_have(frame, Tokens(word))]
    assert len(block.frames) > 8 and block.frames[3] in found and len(found) <= 2
    block.close()


@pytest.mark.parametrize("cut", [1, 10, 100, 5000])
def test_a_damaged_block_is_told_as_far_as_it_goes(tree: tuple[Path, Path], cut: int) -> None:
    directory = Path(container(tree[0]).directory)
    data = many_lines(8_000).replace(b" P ", b" F ")
    (directory / f"0.log.{STAMPS[0]}").write_bytes(data)
    (directory / "0.log").write_bytes(raw(100, "live"))
    assert seal(*tree) == 1
    [path] = tree[1].glob("blocks/*/*/*.zst")
    path.write_bytes(path.read_bytes()[:-cut])
    found = contents(tree)
    assert found[-1] == b"live" and found[0].startswith(b"0 ") and len(found) > 1000
    assert len(tail(both(tree)[0], Query(), 5)) == 5


def queries() -> list[Query]:
    some = [Query(), Query(since=START + 18 * 10**9), Query(until=START + 3 * 10**9), Query(stream="stderr")]
    some += [parse_words((word,), regex=False) for word in ("beta", "Beta", "gamma-d", "777", "nothing")]
    some += [parse_words((word,), regex=False, whole=True) for word in ("beta", "delta", "777", "gamma-delta")]
    return [*some, parse_words(("^7.* b",), regex=True)]


def test_all_that_can_be_asked_is_answered_as_of_plain_files(
    tree: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyrun.logs.block.FRAME", 16 << 10)
    directory = Path(container(tree[0]).directory)
    data = many_lines(2_500)
    cuts = [0, 800 * 60, 1_500 * 60, len(data)]
    ends = [data.find(b"\n", cut) + 1 if 0 < cut < len(data) else cut for cut in cuts]
    for stamp, start, end in zip((*STAMPS[:2], ""), ends, ends[1:], strict=False):
        (directory / f"0.log{'.' + stamp if stamp else ''}").write_bytes(data[start:end])
    (directory / "1.log").write_bytes(raw(200, "of the next attempt"))

    def answers() -> list[Any]:
        one = both(tree)[0]
        found: list[Any] = [[line for _, line in read([one], query)] for query in queries()]
        found += [tail(one, query, lines) for query in queries() for lines in (1, 7, 900)]
        return [*found, *([line for _, line in read([one], query, previous=True)] for query in queries())]

    before = answers()
    assert seal(*tree) == 2
    assert sorted(path.name for path in directory.iterdir()) == ["0.log", "1.log"]
    assert answers() == before and [len(one) for one in before if isinstance(one, list)].count(0) < 10


def test_what_a_kubelet_compressed_or_removed_is_sealed(tree: tuple[Path, Path]) -> None:
    directory = Path(container(tree[0]).directory)
    live = directory / "0.log"
    live.write_bytes(raw(5, "live"))
    with gzip.open(directory / f"0.log.{STAMPS[0]}.gz", "wb") as packed:
        packed.write(raw(0, "packed"))
    store = LogStore(str(tree[1]), Keep())
    sealer = Sealer(str(tree[0]), store, lambda text: pytest.fail(text))
    assert sealer.look() == 1
    # The pod is removed, with a line that nobody has seen.
    live.write_bytes(raw(5, "live") + raw(6, "last"))
    os.utime(live, (START / 1e9, START / 1e9))
    live.unlink()
    directory.rmdir()
    directory.parent.rmdir()
    assert sealer.look() == 1 and sealer.look() == 0
    sealer.close()
    store.close()
    assert contents(tree) == [b"packed", b"live", b"last"]


def test_a_clean_end_seals_what_was_removed(tree: tuple[Path, Path]) -> None:
    """Also what was written to just now, and so is not still; what has a name stays as it is."""
    pods = [Path(container(tree[0], pod=f"shop_{name}_uid").directory) for name in ("gone", "stays")]
    for directory in pods:
        (directory / "0.log").write_bytes(raw(1, directory.parent.name))
    store = LogStore(str(tree[1]), Keep())
    sealer = Sealer(str(tree[0]), store, lambda text: pytest.fail(text))
    assert sealer.look() == 0
    with (pods[0] / "0.log").open("ab") as file:
        file.write(raw(2, "last"))
    shutil.rmtree(pods[0].parent)
    sealer.close()
    store.close()
    assert len(list(tree[1].glob("blocks/*/*/*.zst"))) == 1 and (pods[1] / "0.log").exists()
    assert contents(tree) == [b"shop_gone_uid", b"shop_stays_uid", b"last"]


def test_another_log_of_the_same_size_is_sealed_too(tree: tuple[Path, Path]) -> None:
    """Two of one attempt are removed, last written to at the same second: the second one gets a name of its own."""
    live = Path(container(tree[0]).directory) / "0.log"
    live.write_bytes(raw(1, "one"))
    os.utime(live, (START / 1e9, START / 1e9))
    store = LogStore(str(tree[1]), Keep())
    sealer = Sealer(str(tree[0]), store, lambda text: pytest.fail(text))
    assert sealer.look() == 0
    live.unlink()
    live.write_bytes(raw(2, "two"))
    os.utime(live, (START / 1e9, START / 1e9))
    assert sealer.look() == 1
    live.unlink()
    assert sealer.look() == 1
    sealer.close()
    store.close()
    assert contents(tree) == [b"one", b"two"]


def test_a_file_that_may_have_a_writer_is_left(tree: tuple[Path, Path]) -> None:
    directory = Path(container(tree[0]).directory)
    (directory / f"0.log.{STAMPS[0]}").write_bytes(raw(0, "rotated"))
    assert seal(*tree) == 0
    (directory / "0.log").touch()
    assert seal(*tree) == 0
    (directory / "0.log").write_bytes(raw(1, "new"))
    assert seal(*tree) == 1
    assert contents(tree) == [b"rotated", b"new"]


def test_following_goes_on_in_blocks(tree: tuple[Path, Path]) -> None:
    """The writer rotates faster than we read, and what we read next is sealed by then; history has its end."""
    directory = Path(container(tree[0]).directory)
    live = directory / "0.log"
    live.write_bytes(raw(0, "before"))
    follower = Follower(str(tree[0]), Where(), Query(), str(tree[1]))
    for number, stamp in enumerate(STAMPS):
        with live.open("ab") as file:
            file.write(raw(number + 1, f"{number}"))
        os.rename(live, f"{live}.{stamp}")
    live.write_bytes(raw(9, "live"))
    assert seal(*tree) == 3
    history = [line.content for _, line in read(both(tree), Query(), ends=follower.ends())]
    assert history == [b"before"]
    assert [line.content for _, line in follower.lines()] == [b"0", b"1", b"2", b"live"]
    follower.close()


CALLS = ("open", "write", "fsync", "rename", "unlink", "mkdir", "close")


def killed_at(number: int, work: Callable[[], Any]) -> bool:
    """Runs it in a child that is killed at its nth call that changes something; False: it has made fewer."""
    pid = os.fork()
    if pid == 0:
        left = number

        def counted(call: Callable[..., Any]) -> Callable[..., Any]:
            def run(*argv: Any, **named: Any) -> Any:
                nonlocal left
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*argv, **named)

            return run

        for name in CALLS:
            setattr(os, name, counted(getattr(os, name)))
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def test_a_kill_at_any_call_loses_and_doubles_nothing(tree: tuple[Path, Path]) -> None:
    directory = Path(container(tree[0]).directory)
    expected = [b"0", b"1", b"live"]
    number, killed = 0, True
    while killed:
        shutil.rmtree(tree[1])
        tree[1].mkdir()
        for second, stamp in enumerate(STAMPS[:2]):
            (directory / f"0.log.{stamp}").write_bytes(raw(second, str(second)))
        (directory / "0.log").write_bytes(raw(9, "live"))
        killed = killed_at(number, lambda: seal(*tree))
        assert contents(tree) == expected, f"killed at call {number}"
        seal(*tree)
        assert contents(tree) == expected, f"after a kill at call {number}"
        assert not list(tree[1].glob("blocks/*/*/.*")) and [path.name for path in directory.iterdir()] == ["0.log"]
        number += 1
    assert number > 20


def test_what_is_dropped_is_counted(tree: tuple[Path, Path]) -> None:
    directory = Path(container(tree[0]).directory)
    for number, stamp in enumerate((*STAMPS, "")):
        (directory / f"0.log{'.' + stamp if stamp else ''}").write_bytes(raw(number, "a") + raw(number, "b"))
    seal(*tree)
    one = tree[1].glob("blocks/*/*/*.zst")
    size = next(one).stat().st_size
    kills = 0

    def drop() -> None:
        store = LogStore(str(tree[1]), Keep(1e9, size))
        store.drop_old(START)
        store.close()

    while killed_at(kills, drop):
        kills += 1
    assert len(contents(tree)) == 4
    dropped = read_status(str(tree[1]))["dropped"]
    assert dropped == [{"why": "bytes", "namespace": "shop", "pod": "cart", "container": "app", "lines": 4}]
    assert kills > 1


def test_which_files_are_dropped() -> None:
    where = Container("n", "p", "u", "c", "/d")
    there = [Sealed(str(number), where, 10, number * 10**9, 1) for number in range(5)]
    now = 5 * 10**9
    assert plan_drops(there, Keep(100, 100), now) == []
    assert [(one.path, why) for one, why in plan_drops(there, Keep(3, 100), now)] == [("0", "age"), ("1", "age")]
    assert [(one.path, why) for one, why in plan_drops(there, Keep(4, 20), now)] == [
        ("0", "age"),
        ("1", "bytes"),
        ("2", "bytes"),
    ]


def test_a_busy_writer_and_a_collector_that_is_killed(tree: tuple[Path, Path]) -> None:
    """The program as it is run: what is written, rotated and at last removed is all there, once."""
    directory = Path(container(tree[0]).directory)
    argv = [sys.executable, "-m", "pyrun", "collect", "--dir", str(tree[0]), "--store", str(tree[1])]
    live = directory / "0.log"
    collector = start_collector(argv)
    try:
        number = 0
        for rotation in range(12):
            with live.open("ab", buffering=0) as file:
                for _ in range(500):
                    file.write(raw(number, str(number)))
                    number += 1
            os.rename(live, f"{live}.20261127-1200{rotation:02}")
            live.touch()
            if rotation % 4 == 1:
                wait_for(lambda: any(tree[1].glob("blocks/*/*/*.zst")), "something is sealed")
                collector.kill()
                collector.wait()
                collector = start_collector(argv)
        live.write_bytes(raw(number, str(number)))
        wait_for(lambda: [path.name for path in directory.iterdir()] == ["0.log"], "all rotated files are sealed")
        live.unlink()
        wait_for(lambda: len(contents(tree)) == number + 1, "what was removed is sealed")
        assert contents(tree) == [b"%d" % one for one in range(number + 1)]
    finally:
        collector.terminate()
        assert collector.wait(60) == 0
    assert len(list(tree[1].glob("blocks/*/*/*.zst"))) == 13


def test_what_can_not_be_counted_yet_is_summed_up(tree: tuple[Path, Path]) -> None:
    """For as long as the disk is full."""
    there = Container("shop", "web", "u1", "app", str(tree[0]))
    store = LogStore(str(tree[1]), Keep(60.0, 1 << 20))
    store._db.execute("PRAGMA query_only = 1")
    for _ in range(1000):
        store.count_dropped("full", there, 3)
    assert len(store._late) == 1
    store._db.execute("PRAGMA query_only = 0")
    store.count_dropped("full", there, 1)
    store.close()
    about = {"why": "full", "namespace": "shop", "pod": "web", "container": "app"}
    assert read_status(str(tree[1]))["dropped"] == [about | {"lines": 3001}]
