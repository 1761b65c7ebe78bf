from __future__ import annotations

import os
import select
from pathlib import Path

import pytest

from pyrun import inotify
from pyrun.errors import PyrunError
from pyrun.inotify import Watch


def all_of(watch: Watch) -> list[tuple[int, str]]:
    assert select.select([watch], [], [], 10)[0]
    return [(event.mask & ~inotify.ISDIR, event.name) for event in watch.read()]


def test_writes_renames_and_removals_are_told(tmp_path: Path) -> None:
    with Watch() as watch:
        wd = watch.add(str(tmp_path))
        assert watch.read() == []
        (tmp_path / "a.partial").write_text("x")
        (tmp_path / "a.partial").rename(tmp_path / "a")
        (tmp_path / "a").unlink()
        (tmp_path / "ü").mkdir()
        assert all_of(watch) == [
            (inotify.CREATE, "a.partial"),
            (inotify.CLOSE_WRITE, "a.partial"),
            (inotify.MOVED_FROM, "a.partial"),
            (inotify.MOVED_TO, "a"),
            (inotify.DELETE, "a"),
            (inotify.CREATE, "ü"),
        ]
        (tmp_path / "b").touch()
        assert {event.wd for event in watch.read()} == {wd}


def test_both_halves_of_a_rename_have_one_cookie(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with Watch() as watch:
        watch.add(str(tmp_path))
        (tmp_path / "a").rename(tmp_path / "b")
        one, other = watch.read()
        assert one.cookie == other.cookie != 0


def test_the_end_of_what_is_watched(tmp_path: Path) -> None:
    path = tmp_path / "d"
    path.mkdir()
    with Watch() as watch:
        watch.add(str(path))
        path.rmdir()
        assert all_of(watch) == [(inotify.DELETE_SELF, ""), (inotify.IGNORED, "")]
        wd = watch.add(str(tmp_path))
        watch.remove(wd)
        watch.remove(wd)
        assert all_of(watch) == [(inotify.IGNORED, "")]


def test_lost_events_are_told(tmp_path: Path) -> None:
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if most > 200_000:
        pytest.skip(f"{most} events would have to be made before one is lost")
    with Watch() as watch:
        watch.add(str(tmp_path), inotify.ATTRIB)
        names = [tmp_path / "a", tmp_path / "b"]  # two in turn: equal ones that follow each other are one
        for name in names:
            name.touch()
        for number in range(most + 10):
            os.utime(names[number % 2])
        seen = []
        while found := watch.read():
            seen += found
        assert seen[-1].mask & inotify.Q_OVERFLOW and seen[-1].wd == -1


def test_nothing_there(tmp_path: Path) -> None:
    with Watch() as watch, pytest.raises(PyrunError, match="no such file"):
        watch.add(str(tmp_path / "none"))
    watch.close()
