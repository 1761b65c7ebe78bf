"""Following the logs of pods: what is written while rotations, restarts and new pods come between."""

from __future__ import annotations

import gzip
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyrun.logs.follow import Cursor, Follower
from pyrun.logs.query import Query, Where
from pyrun.logs.read import read
from pyrun.logs.tree import collect_containers

from .test_logs import container, raw


@pytest.fixture
def followed(tmp_path: Path) -> Iterator[tuple[Path, list[str], Follower]]:
    """A container's directory with a line of before, what has been followed, and who follows."""
    one = container(tmp_path)
    directory = Path(one.directory)
    (directory / "0.log").write_bytes(raw(0, "before"))
    follower = Follower(str(tmp_path), Where(), Query())
    yield directory, [], follower
    follower.close()


def look(follower: Follower, found: list[str]) -> list[str]:
    found += [line.content.decode() for _, line in follower.lines()]
    return found


def append(path: Path, text: str) -> None:
    with path.open("ab") as file:
        file.write(raw(1, text))


def test_only_what_comes(followed: tuple[Path, list[str], Follower]) -> None:
    directory, found, follower = followed
    assert look(follower, found) == []
    append(directory / "0.log", "one")
    assert look(follower, found) == ["one"]
    with (directory / "0.log").open("ab") as file:
        file.write(raw(1, "half")[:-7])
    assert look(follower, found) == ["one"]


def test_what_was_before_is_history_and_nothing_is_told_twice(
    followed: tuple[Path, list[str], Follower], tmp_path: Path
) -> None:
    directory, found, follower = followed
    append(directory / "0.log", "after")
    history = [line.content for _, line in read(collect_containers(str(tmp_path)), Query(), ends=follower.ends())]
    assert (history, look(follower, found)) == ([b"before"], ["after"])


def test_over_a_rotation_whose_writer_goes_on_in_the_old_file(followed: tuple[Path, list[str], Follower]) -> None:
    directory, found, follower = followed
    os.rename(directory / "0.log", directory / "0.log.20261127-120000")
    append(directory / "0.log.20261127-120000", "late")
    assert look(follower, found) == ["late"]
    (directory / "0.log").touch()
    append(directory / "0.log.20261127-120000", "later")
    assert look(follower, found) == ["late", "later"]
    append(directory / "0.log.20261127-120000", "latest")
    append(directory / "0.log", "new")
    assert look(follower, found) == ["late", "later", "latest", "new"]


def test_two_rotations_between_two_looks(followed: tuple[Path, list[str], Follower]) -> None:
    directory, found, follower = followed
    for number, stamp in enumerate(("20261127-120000", "20261127-120001", "20261127-120002")):
        append(directory / "0.log", f"{number}")
        os.rename(directory / "0.log", directory / f"0.log.{stamp}")
    append(directory / "0.log", "live")
    assert look(follower, found) == ["0", "1", "2", "live"]


def test_a_rotated_file_that_is_compressed_at_once(followed: tuple[Path, list[str], Follower]) -> None:
    directory, found, follower = followed
    for stamp in ("20261127-120000", "20261127-120001"):
        append(directory / "0.log", stamp)
        data = (directory / "0.log").read_bytes()
        (directory / f"0.log.{stamp}.gz").write_bytes(gzip.compress(data))
        (directory / "0.log").rename(directory / "gone")
        append(directory / "0.log", f"live {stamp}")
    assert look(follower, found)[0] == "20261127-120000" and found[-1] == "live 20261127-120001"
    assert "live 20261127-120000" in found


def test_the_next_attempt_and_a_new_pod(followed: tuple[Path, list[str], Follower], tmp_path: Path) -> None:
    directory, found, follower = followed
    append(directory / "0.log", "last words")
    append(directory / "1.log", "again")
    assert look(follower, found) == ["last words", "again"]
    other = container(tmp_path, pod="shop_new_uid-2")
    append(Path(other.directory, "0.log"), "from its beginning")
    assert look(follower, found)[2:] == ["from its beginning"]
    shutil.rmtree(tmp_path / "shop_new_uid-2")
    append(directory / "1.log", "goes on")
    assert look(follower, found)[3:] == ["goes on"]


@pytest.mark.parametrize("seed", range(8))
def test_no_line_is_lost_or_told_twice(followed: tuple[Path, list[str], Follower], seed: int) -> None:
    """Writes, rotations and looks in any order."""
    directory, found, follower = followed
    chance = random.Random(seed)
    written, stamp, attempt = [], 0, 0
    for number in range(300):
        match chance.randrange(6):
            case 0:
                stamp += 1
                live = directory / f"{attempt}.log"
                if live.exists():
                    live.rename(directory / f"{attempt}.log.20261127-{stamp:06}")
            case 1 if chance.random() < 0.3:
                attempt += 1
            case 2:
                look(follower, found)
            case _:
                append(directory / f"{attempt}.log", f"{number}")
                written.append(f"{number}")
    look(follower, found)
    assert found == written


@pytest.mark.parametrize("seed", range(8))
def test_a_line_is_told_again_from_where_it_begins(tmp_path: Path, seed: int) -> None:
    """Also one whose pieces are in two files, as of a runtime that rotates in the middle of a line."""
    one, chance = container(tmp_path), random.Random(seed)
    live = Path(one.directory, "0.log")
    reader, begins = Cursor(one), []
    for number in range(120):
        match chance.randrange(8):
            case 0 if live.exists():
                live.rename(live.with_name(f"0.log.20261127-{number:06}"))
            case 1:
                begins += [(line, reader.begin()) for line in reader.read()]
            case _:
                tag, stream = chance.choice("PF"), chance.choice(["stdout", "stderr"])
                with live.open("ab") as file:
                    file.write(raw(number, f"{number}.", stream=stream, tag=tag))
    begins += [(line, reader.begin()) for line in reader.read()]
    reader.close()
    for line, begin in begins:
        again = Cursor(one)
        assert again.start_at(begin) and line in list(again.read())
        again.close()


def test_a_wait_ends_when_something_is_written(followed: tuple[Path, list[str], Follower]) -> None:
    directory, found, follower = followed
    append(directory / "0.log", "now")
    follower.wait()
    assert look(follower, found) == ["now"]
