"""Reading the logs of pods: lines, their pieces, what is wanted, forward and backward, over files of all kinds."""

from __future__ import annotations

import gzip
import random
import tracemalloc
from pathlib import Path

import pytest

from pyrun.errors import InvalidArgument
from pyrun.logs.files import CHUNK, _Gunzip
from pyrun.logs.line import LONGEST, SECOND, Line, join, parse_piece, parse_time
from pyrun.logs.query import Query, Where, parse_selector, parse_words, selects
from pyrun.logs.read import read, read_container, tail
from pyrun.logs.show import as_text, as_value, time_text
from pyrun.logs.tree import Container, collect_containers, collect_segments

START = parse_time("2026-11-27T12:00:00Z")


def container(root: Path, name: str = "app", pod: str = "shop_cart_uid-1") -> Container:
    """A container's directory, made."""
    directory = root / pod / name
    directory.mkdir(parents=True, exist_ok=True)
    return next(one for one in collect_containers(str(root)) if one.directory == str(directory))


def raw(seconds: float, content: bytes | str, *, stream: str = "stdout", tag: str = "F") -> bytes:
    text = content.encode() if isinstance(content, str) else content
    return f"{time_text(START + int(seconds * SECOND))} {stream} {tag} ".encode() + text + b"\n"


def told(lines: list[Line]) -> list[str]:
    return [line.content.decode() for line in lines]


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:01.5Z", 1_500_000_000),
        ("2026-11-27T12:00:00.123456789Z", START + 123_456_789),
        ("2026-11-27T13:30:00.000000001+01:30", START + 1),
        ("2026-11-27T07:00:00-05:00", START),
    ],
)
def test_times(text: str, nanoseconds: int) -> None:
    assert parse_time(text) == nanoseconds
    assert parse_time(time_text(nanoseconds)) == nanoseconds


@pytest.mark.parametrize(
    "text",
    ["", "2026", "2026-11-27 12:00:00Z", "2026-13-27T12:00:00Z", "2026-11-27T12:00:00", "2026-11-27T12:00:00.5+1"],
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises((ValueError, IndexError)):
        parse_time(text)


def test_pieces_of_lines_are_put_together_a_stream_at_a_time() -> None:
    raws = [
        raw(0, "one ", tag="P"),
        raw(1, "error ", stream="stderr", tag="P"),
        raw(2, "two", tag="F:more"),
        raw(3, "told", stream="stderr"),
        raw(4, "no end", tag="P"),
    ]
    lines = list(join(line.rstrip(b"\n") for line in raws))
    assert told(lines) == ["one two", "error told", "no end"]
    assert [(line.time - START) // SECOND for line in lines] == [0, 1, 4]
    assert [line.cut for line in lines] == [False, False, True]


def test_a_line_without_end_is_told_in_parts() -> None:
    piece = b"x" * 65536
    raws = (raw(0, piece, tag="P").rstrip(b"\n") for _ in range(3 * LONGEST // len(piece)))
    lines = list(join(raws))
    assert [len(line.content) for line in lines] == [LONGEST] * 3 and all(line.cut for line in lines)


@pytest.mark.parametrize(
    "line", [b"", b"\0", b"2026-11-27T12:00:00Z stdout", b"2026-11-27T12:00:00Z stdin F x", b"x y z"]
)
def test_what_is_not_of_the_format_is_told_whole(line: bytes) -> None:
    assert parse_piece(line) is None
    assert [(one.stream, one.content) for one in join([line])] == [("", line)]


def test_words_are_found_in_any_case_unless_one_has_a_capital() -> None:
    assert parse_words(("time", "out"), regex=False).matches(b"a Time-OUT")
    assert not parse_words(("time", "outs"), regex=False).matches(b"a time-out")
    assert parse_words(("Time",), regex=False).matches(b"a Time") and not parse_words(("Time",), regex=False).matches(
        b"time"
    )
    assert parse_words(("t.me", "^a"), regex=True).matches(b"a TIME") and not parse_words(
        ("t.me$",), regex=True
    ).matches(b"times")


def test_a_faulty_expression_is_told_with_its_place() -> None:
    with pytest.raises(InvalidArgument, match="'a\\(b' is no regular expression: .* at character 2"):
        parse_words(("a(b",), regex=True)


@pytest.mark.parametrize(
    ("selector", "holds"),
    [
        ("app=web", True),
        ("app==web,tier", True),
        ("app!=web", False),
        ("app in (db, web), tier notin (back)", True),
        ("app notin (web)", False),
        ("gone", False),
        ("!gone", True),
        ("gone!=x", True),
        ("gone notin (x)", True),
        ("tier in ()", False),
    ],
)
def test_selectors(selector: str, holds: bool) -> None:
    assert selects(parse_selector(selector), {"app": "web", "tier": "front"}) is holds


@pytest.mark.parametrize("text", ["app=", "=web", "app in web", "a b", "app=web tier=x", "(a)"])
def test_what_is_no_selector(text: str) -> None:
    if text == "app=":
        assert parse_selector(text) == (("app", "in", ("",)),)
        return
    with pytest.raises(InvalidArgument, match="is no requirement of a label"):
        parse_selector(text)


def test_files_of_a_container_from_the_oldest(tmp_path: Path) -> None:
    one = container(tmp_path)
    names = [
        "1.log",
        "0.log.20261127-120000.gz",
        "0.log.20261127-130000",
        "0.log.20261127-130000.gz",
        "0.log",
        "10.log",
    ]
    for name in [*names, ".0.log.swp", "x.log", "0.log.gz", "0.log.tmp", "0.txt"]:
        Path(one.directory, name).touch()
    found = [Path(segment.path).name for segment in collect_segments(one)]
    assert found == ["0.log.20261127-120000.gz", "0.log.20261127-130000", "0.log", "1.log", "10.log"]


def test_other_names_are_passed_over_and_links_are_not_followed(tmp_path: Path) -> None:
    one = container(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "a_b" / "c").mkdir(parents=True)
    (tmp_path / "a__c" / "d").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(raw(0, "secret"))
    Path(one.directory, "0.log").symlink_to(tmp_path / "secret")
    (tmp_path / "shop_cart_uid-1" / "link").symlink_to(one.directory)
    assert [found.name for found in collect_containers(str(tmp_path))] == ["app"]
    assert list(read_container(one, Query())) == []


def written(root: Path, lines: int, *, seed: int) -> tuple[Container, list[str]]:
    """A container whose lines lie in pieces, over rotated, compressed and live files and two attempts."""
    chance = random.Random(seed)
    one = container(root)
    files = ["0.log.20261127-120000.gz", "0.log.20261127-130000", "0.log", "1.log"]
    texts: list[str] = []
    for index, name in enumerate(files):
        data = bytearray()
        for number in range(index * lines, (index + 1) * lines):
            text = f"line {number} " + "é" * chance.randrange(60)
            texts.append(text)
            content, stream = text.encode(), chance.choice(("stdout", "stderr"))
            cuts = sorted(chance.randrange(len(content) + 1) for _ in range(chance.randrange(3)))
            for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True):
                tag = "F" if end == len(content) and (start, end) == ([0, *cuts][-1], len(content)) else "P"
                data += raw(number, content[start:end], stream=stream, tag=tag)
                if tag == "F":
                    break
        path = Path(one.directory, name)
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return one, texts


@pytest.mark.parametrize("seed", range(5))
def test_all_lines_forward_and_backward(tmp_path: Path, seed: int) -> None:
    one, texts = written(tmp_path, 200, seed=seed)
    assert told(list(read_container(one, Query()))) == texts
    for number in (0, 1, 7, 250, 799, 800, 5000):
        assert told(tail(one, Query(), number)) == texts[len(texts) - min(number, len(texts)) :]
    wanted = Query(words=(b"line 3",))
    expected = [text for text in texts if "line 3" in text]
    assert told(list(read_container(one, wanted))) == expected
    assert told(tail(one, wanted, 5)) == expected[-5:]
    since = Query(since=START + 555 * SECOND, until=START + 700 * SECOND)
    assert told(list(read_container(one, since))) == texts[555:700]
    assert told(list(read_container(one, Query(), previous=True))) == texts[:600]
    assert told(tail(one, Query(), 3, previous=True)) == texts[597:600]


def test_a_time_is_found_in_a_large_file_without_reading_it(tmp_path: Path) -> None:
    one = container(tmp_path)
    number = 6 * CHUNK // 128
    Path(one.directory, "0.log").write_bytes(b"".join(raw(second, "x" * 80) for second in range(number)))
    lines = list(read_container(one, Query(since=START + (number - 3) * SECOND)))
    assert [(line.time - START) // SECOND for line in lines] == [number - 3, number - 2, number - 1]
    assert list(read_container(one, Query(since=START + number * SECOND))) == []


@pytest.mark.parametrize("seed", range(3))
def test_lines_that_are_out_of_order(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that is set back by some seconds hides no line before a time from who reads backward, nor one after it
    from who reads forward."""
    monkeypatch.setattr("pyrun.logs.files.CHUNK", 1 << 10)
    chance, one = random.Random(seed), container(tmp_path)
    stamps = [second / 4 - chance.choice((0, 0, 0, 4.9)) + 10 for second in range(400)]
    Path(one.directory, "0.log").write_bytes(b"".join(raw(at, f"{number}") for number, at in enumerate(stamps)))
    for _ in range(12):
        at = chance.randrange(4 * 120) / 4
        before = {str(number) for number, stamp in enumerate(stamps) if stamp < at}
        bound = START + int(at * SECOND)
        assert set(told(tail(one, Query(until=bound), 400))) == before, at
        after = set(told(list(read_container(one, Query(since=bound)))))
        assert after == {str(number) for number in range(400)} - before, at


def test_a_rare_word_is_found_in_a_large_file_also_across_pieces(tmp_path: Path) -> None:
    one = container(tmp_path)
    common = b"".join(raw(second, "x" * 80) for second in range(2 * CHUNK // 128))
    needle = raw(1e6, "nee", tag="P") + raw(1e6, "dle")
    Path(one.directory, "0.log").write_bytes(common + needle + common + raw(2e6, "NEEDLE"))
    assert told(list(read_container(one, parse_words(("needle",), regex=False)))) == ["needle", "NEEDLE"]


@pytest.mark.parametrize("damage", ["cut", "turned"])
def test_a_damaged_compressed_file_is_told_as_far_as_it_goes(tmp_path: Path, damage: str) -> None:
    one = container(tmp_path)
    chance = random.Random(1)
    data = gzip.compress(b"".join(raw(second, chance.randbytes(40).hex()) for second in range(5000)))
    data = data[: len(data) // 2] if damage == "cut" else data[:-200] + bytes(byte ^ 255 for byte in data[-200:])
    Path(one.directory, "0.log.20261127-120000.gz").write_bytes(data)
    Path(one.directory, "0.log").write_bytes(raw(6000, "the newest"))
    lines = told(list(read_container(one, Query())))
    assert len(lines) > 1000 and lines[-1] == "the newest"


@pytest.mark.parametrize("seed", range(3))
def test_a_compressed_file_is_read_backward_in_parts(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyrun.logs.files.CHUNK", 1 << 10)
    monkeypatch.setattr("pyrun.logs.files.HELD", 5 << 10)
    one, texts = written(tmp_path, 300, seed=seed)
    assert told(tail(one, Query(), 5000)) == texts


def test_reading_a_compressed_file_backward_takes_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyrun.logs.files.HELD", 2 << 20)
    one, number = container(tmp_path), 1200
    data = gzip.compress(b"".join(raw(second, f" {second} " + "x" * 20_000) for second in range(number)), 1)
    Path(one.directory, "0.log.20261127-120000.gz").write_bytes(data)
    tracemalloc.start()
    try:
        found = tail(one, parse_words((" 111 x",), regex=False), 10)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [line.content.split()[0] for line in found] == [b"111"]
    assert peak < 12 << 20


@pytest.mark.parametrize("members", [1, 40])
def test_reading_a_compressed_file_backward_unpacks_no_byte_more_than_twice(
    tmp_path: Path, members: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many times more than HELD it is; also where it was put together of several."""
    monkeypatch.setattr("pyrun.logs.files.CHUNK", 4 << 10)
    monkeypatch.setattr("pyrun.logs.files.HELD", 16 << 10)
    one, number = container(tmp_path), 10_000
    lines = [raw(second, f" {second} ") for second in range(number)]
    of_each = number // members
    parts = [gzip.compress(b"".join(lines[at : at + of_each])) + b"\0" * 3 for at in range(0, number, of_each)]
    Path(one.directory, "0.log.20261127-120000.gz").write_bytes(b"".join(parts))
    unpacked, read = 0, _Gunzip.read

    def counting(self: _Gunzip, size: int) -> bytes:
        nonlocal unpacked
        data = read(self, size)
        unpacked += len(data)
        return data

    monkeypatch.setattr(_Gunzip, "read", counting)
    found = [int(line.content) for line in tail(one, Query(), number)]
    size = sum(map(len, lines))
    assert found == list(range(number)) and size > 20 * (16 << 10)
    assert unpacked < 2.5 * size  # a chunk in each part is read on into the next one


def test_of_a_compressed_file_with_many_zeros_between_its_parts_all_is_told(tmp_path: Path) -> None:
    one, lines = container(tmp_path), [raw(second, f" {second} ") for second in range(100)]
    data = b"".join([gzip.compress(line) + bytes(70_000) for line in lines])
    Path(one.directory, "0.log.20261127-120000.gz").write_bytes(data)
    assert len(list(read_container(one, Query()))) == len(tail(one, Query(), 900)) == len(lines)


def test_of_a_compressed_file_all_that_comes_before_the_damage_is_told(tmp_path: Path) -> None:
    one, chance = container(tmp_path), random.Random(2)
    lines = [raw(second, chance.randbytes(40).hex()) for second in range(5000)]
    data = bytearray(gzip.compress(b"".join(lines)))
    data[-8] ^= 1  # the checksum of it all
    Path(one.directory, "0.log.20261127-120000.gz").write_bytes(data)
    assert len(list(read_container(one, Query()))) == len(tail(one, Query(), 9000)) == len(lines)


def test_several_containers_in_the_order_of_time(tmp_path: Path) -> None:
    for pod in range(3):
        one = container(tmp_path, pod=f"shop_p{pod}_u{pod}")
        Path(one.directory, "0.log").write_bytes(b"".join(raw(second * 3 + pod, f"{pod}") for second in range(4)))
    found = [line.content for _, line in read(collect_containers(str(tmp_path)), Query())]
    assert found == [b"0", b"1", b"2"] * 4


def test_which_containers(tmp_path: Path) -> None:
    one = container(tmp_path)
    assert Where().takes(one) and Where("shop", "c*t", "a?p", frozenset({"uid-1"})).takes(one)
    assert not Where("sho").takes(one) and not Where(pod="x*").takes(one) and not Where(uids=frozenset()).takes(one)


def test_a_terminal_does_not_obey_what_a_program_wrote(tmp_path: Path) -> None:
    one = container(tmp_path)
    line = Line(START, "stdout", b"\x1b]0;title\x07\x1b[2J\xff\r")
    shown = as_text(one, line, timestamps=True, alone=True, terminal=True)
    assert shown.startswith(b"2026-11-27T12:00:00.000000000Z ") and not set(shown[:-1]) & {0x1B, 0x07, 0x0D}
    assert as_text(one, line, timestamps=False, alone=True, terminal=False) == line.content + b"\n"
    assert as_text(one, line, timestamps=False, alone=False, terminal=False).startswith(b"shop/cart app \x1b")
    assert as_value(one, line)["line"].endswith("\ufffd\r") and as_value(one, line)["namespace"] == "shop"
