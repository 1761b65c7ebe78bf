"""When the disk has an image: before a command answers, or behind the daemon's answer; and what a power cut leaves."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyrun.errors import FailedPrecondition, PyrunError
from pyrun.image import contents, layers
from pyrun.image.layer_program import Told
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


def bring_second_and_die(
    root: Path, monkeypatch: pytest.MonkeyPatch, *, written: bool, after: Callable[[], None]
) -> None:
    if not written:
        monkeypatch.setattr(layers, "sync", never)
    images = Images(str(root / "image"), behind=True)
    add(images, SECOND, "q.io/b:1")
    if written:
        images.settle()
    images.tag("q.io/b:1", "q.io/c:1")  # this waits for the disk: from now on that has the image's row, too
    assert (SECOND.diff_ids[1] in unwritten(images)) != written
    after()


class Disk:
    """An ext4 of its own, which keeps what it had on its disk and no more."""

    def __init__(self, path: Path) -> None:
        self.file, self.root = path / "disk", path / "mount"
        self.root.mkdir()
        with self.file.open("wb") as file:
            file.truncate(256 << 20)
        subprocess.run(["mkfs.ext4", "-q", self.file], check=True)
        self.mount()

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", self.file, self.root], check=True)

    def cut(self) -> None:
        fcntl.ioctl(os.open(self.root, os.O_RDONLY), SHUT_DOWN, struct.pack("I", AT_ONCE))

    def boot(self, monkeypatch: pytest.MonkeyPatch) -> None:
        unmount(self.root)
        self.mount()
        monkeypatch.setattr(contents, "boot_id", lambda: "of the boot after it")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if not Path("/dev/loop-control").exists():
        pytest.skip("there are no loop devices here, as a disk of its own needs one")
    made = Disk(tmp_path)
    yield made
    unmount(made.root)


@pytest.mark.parametrize("written", [False, True])
def test_a_power_cut(disk: Disk, monkeypatch: pytest.MonkeyPatch, written: bool) -> None:
    root = disk.root
    images = Images(str(root / "image"))
    add(images, FIRST, "q.io/a:1")
    images.close()
    in_a_child(lambda: bring_second_and_die(root, monkeypatch, written=written, after=disk.cut))
    disk.boot(monkeypatch)
    layer = root / "image/layers" / SECOND.diff_ids[1].removeprefix("sha256:")
    if written:  # else it is mostly empty, but the kernel may have been faster
        assert (layer / "second").read_text() == "hello\n"
    images = Images(str(root / "image"))
    images.settle()
    there = [FIRST.id, SECOND.id] if written else [FIRST.id]
    assert images.damaged == ([] if written else [SECOND.id])
    assert sorted(image.id for image in images.list()) == sorted(there)
    assert layer.exists() == written
    expect_whole(images, SECOND, "second")
    images.close()


def expect_whole(images: Images, made: Made, own: str) -> None:
    """After another pull."""
    image = add(images, made, "q.io/again:1")
    for path, name in zip(images.lowers(image.id), (own, "shared"), strict=True):
        assert Path(path, name).read_text() == "hello\n"


def bring_again_and_die(disk: Disk, monkeypatch: pytest.MonkeyPatch, *, by_hand: bool) -> None:
    """The disk gets the names of files, as another program's fsync has it; what is in files it does not get."""
    monkeypatch.setattr(Images, "_write_out", lambda _self: None)  # its turn does not come
    images = Images(str(disk.root / "image"), behind=True)
    if by_hand:
        fd = images.contents.layers
        os.rename(FIRST.diff_ids[1].removeprefix("sha256:"), "../../gone", src_dir_fd=fd, dst_dir_fd=fd)
        images.close()
        images = Images(str(disk.root / "image"), behind=True)
    else:
        images.remove("q.io/a:1")
        images.settle()
    add(images, FIRST, "q.io/a:1")
    os.fsync(os.open(disk.root / "other", os.O_CREAT | os.O_WRONLY))
    disk.cut()


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_power_cut_brings_no_row_back(disk: Disk, monkeypatch: pytest.MonkeyPatch, by_hand: bool) -> None:
    """Of a layer that was forgotten, and brought again in a directory of the same name: that one has empty files."""
    images = Images(str(disk.root / "image"))
    add(images, FIRST, "q.io/a:1")
    images.close()
    os.sync()
    in_a_child(lambda: bring_again_and_die(disk, monkeypatch, by_hand=by_hand))
    disk.boot(monkeypatch)
    monkeypatch.setattr(Images, "_clear_later", lambda _self, _dead: None)  # it may be slow, and a pull come before it
    images = Images(str(disk.root / "image"), behind=True)
    expect_whole(images, FIRST, "first")
    images.close()


def test_the_daemon_answers_before_the_disk_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed right then, it is as good as ever for all in this boot; the next daemon has it written out."""
    in_a_child(lambda: bring_second_and_die(tmp_path, monkeypatch, written=False, after=lambda: None))
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
    raise Told("sync: input/output error")


def stuck(_directory: int, *, cancel: Callable[[], bool] | None = None) -> None:
    raise PyrunError("pyrun-layer does not end")


def test_who_could_not_ask_the_disk_has_damaged_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layers are as good as before, and the next start has them written out."""
    said: list[str] = []
    images = Images(str(tmp_path / "image"), behind=True, warn=said.append)
    with monkeypatch.context() as patch:
        patch.setattr(layers, "sync", stuck)
        image = add(images, FIRST, "q.io/a:1")
        images.settle()
        assert len(said) == 1 and "does not end" in said[0]
        assert unwritten(images) == set(FIRST.diff_ids) and len(images.hold(image.id, "c1")) == 2
        images.close()
    images = Images(str(tmp_path / "image"), behind=True)
    images.settle()
    assert unwritten(images) == set()
    images.close()


def test_the_disk_has_what_was_committed_before(tmp_path: Path) -> None:
    """Also where nothing is left to be committed: a commit of nothing waits for nothing."""
    images = Images(str(tmp_path / "image"))
    add(images, FIRST, "q.io/a:1")
    log = tmp_path / "image/meta.db-wal"
    before = log.read_bytes()
    images.contents.database.write_out()
    assert log.read_bytes() != before
    images.close()


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
