"""When the disk has an image: before a command answers, or behind the daemon's answer; and what a power cut leaves."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pyrun.errors import FailedPrecondition, PyrunError
from pyrun.image import contents, layers
from pyrun.image.reference import parse_reference
from pyrun.image.store import Image, Images
from tests.support.container.disk import unmount
from tests.support.registry.made import Made, make_image, small_tar

SHARED = small_tar("shared")
FIRST = make_image([SHARED, small_tar("first")])
SECOND = make_image([SHARED, small_tar("second")])
SHUT_DOWN, AT_ONCE = 0x8004587D, 2  # EXT4_IOC_SHUTDOWN, and without its journal
PATIENCE_S = 60.0


def add(images: Images, made: Made, name: str) -> Image:
    return images.add(made.source(), [parse_reference(name)])


def unwritten(images: Images) -> set[str]:
    return set(images.contents.database.words("SELECT diff_id FROM unwritten"))


def never(_directory: int, *, cancel: Callable[[], bool] | None = None) -> None:
    """The disk takes nothing as long as this process lives."""
    threading.Event().wait(PATIENCE_S)
    raise AssertionError("this process was to be killed")


def in_a_child(do: Callable[[], None]) -> None:
    """Which ends without closing anything."""
    child = os.fork()
    if child == 0:
        try:
            do()
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def bring_second_and_die(root: Path, monkeypatch: pytest.MonkeyPatch, *, written: bool, cut: bool) -> None:
    if not written:
        monkeypatch.setattr(layers, "sync", never)
    images = Images(str(root / "image"), behind=True)
    add(images, SECOND, "q.io/b:1")
    if written:
        images.settle()
    images.tag("q.io/b:1", "q.io/c:1")  # this waits for the disk: from now on that has the image's row, too
    assert (SECOND.diff_ids[1] in unwritten(images)) != written
    if cut:
        directory = os.open(root, os.O_RDONLY)
        fcntl.ioctl(directory, SHUT_DOWN, struct.pack("I", AT_ONCE))


@pytest.mark.parametrize("written", [False, True])
def test_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: bool) -> None:
    """An ext4 of its own, which keeps what it had on its disk and no more."""
    disk, root = tmp_path / "disk", tmp_path / "mount"
    root.mkdir()
    with disk.open("wb") as file:
        file.truncate(256 << 20)
    subprocess.run(["mkfs.ext4", "-q", disk], check=True)
    mount = ["mount", "-o", "loop", str(disk), str(root)]
    subprocess.run(mount, check=True)
    try:
        images = Images(str(root / "image"))
        add(images, FIRST, "q.io/a:1")
        images.close()
        in_a_child(lambda: bring_second_and_die(root, monkeypatch, written=written, cut=True))
        unmount(root)
        subprocess.run(mount, check=True)
        layer = root / "image/layers" / SECOND.diff_ids[1].removeprefix("sha256:")
        if written:  # else it is mostly empty, but the kernel may have been faster
            assert (layer / "second").read_text() == "hello\n"
        monkeypatch.setattr(contents, "boot_id", lambda: "of the boot after it")
        images = Images(str(root / "image"))
        images.settle()
        there = [FIRST.id, SECOND.id] if written else [FIRST.id]
        assert images.damaged == ([] if written else [SECOND.id])
        assert sorted(image.id for image in images.list()) == sorted(there)
        assert layer.exists() == written
        image = add(images, SECOND, "q.io/b:1")
        for path, name in zip(images.lowers(image.id), ("second", "shared"), strict=True):
            assert Path(path, name).read_text() == "hello\n"
        images.close()
    finally:
        unmount(root)


def test_the_daemon_answers_before_the_disk_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed right then, it is as good as ever for all in this boot; the next daemon has it written out."""
    in_a_child(lambda: bring_second_and_die(tmp_path, monkeypatch, written=False, cut=False))
    root = str(tmp_path / "image")
    command = Images(root)
    assert [image.id for image in command.list()] == [SECOND.id] and command.damaged == []
    command.settle()
    assert unwritten(command) == {SECOND.diff_ids[1], SECOND.diff_ids[0]}
    command.close()
    daemon = Images(root, behind=True)
    daemon.settle()
    assert unwritten(daemon) == set() and [image.id for image in daemon.list()] == [SECOND.id]
    daemon.close()


def test_a_command_answers_when_the_disk_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = Images(str(tmp_path / "image"))
    add(images, FIRST, "q.io/a:1")
    assert unwritten(images) == set()
    monkeypatch.setattr(layers, "sync", broken)
    with pytest.raises(PyrunError, match="input/output error"):
        add(images, SECOND, "q.io/b:1")
    assert [image.id for image in images.list()] == [FIRST.id]
    images.close()


def broken(_directory: int, *, cancel: Callable[[], bool] | None = None) -> None:
    raise PyrunError("sync: input/output error")


def test_a_disk_that_does_not_take_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No container gets what nobody knows to be there. A pull brings it anew."""
    said: list[str] = []
    images = Images(str(tmp_path / "image"), behind=True, warn=said.append)
    with monkeypatch.context() as patch:
        patch.setattr(layers, "sync", broken)
        image = add(images, FIRST, "q.io/a:1")
        images.settle()
    assert len(said) == 1 and "layers can't be written out" in said[0] and "input/output error" in said[0]
    with pytest.raises(FailedPrecondition, match="the disk did not take it: .*input/output error"):
        images.hold(image.id, "c1")
    again = add(images, FIRST, "q.io/a:1")
    images.settle()
    assert unwritten(images) == set() and len(images.hold(again.id, "c1")) == 2
    images.close()
