"""When the disk has an image: before a command answers, or behind the daemon's answer; and what a power cut leaves."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from pyrun.cri.runtime.node import notes
from pyrun.errors import FailedPrecondition, PyrunError
from pyrun.image import contents, layers, store, writer
from pyrun.image.layer_program import Told
from pyrun.image.reference import parse_reference
from pyrun.image.store import Image, Images
from pyrun.image.verify import verify
from pyrun.image.writer import Writer
from tests.support.container.disk import unmount
from tests.support.container.runner import wait_for
from tests.support.layers import Tar
from tests.support.registry.made import Made, make_image, small_tar

if TYPE_CHECKING:
    from pyrun.cri.cri import Cri

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
        fd = os.open(self.root, os.O_RDONLY)
        fcntl.ioctl(fd, SHUT_DOWN, struct.pack("I", AT_ONCE))
        os.close(fd)

    def boot(self, monkeypatch: pytest.MonkeyPatch) -> None:
        unmount(self.root)
        self.mount()
        monkeypatch.setattr(contents, "boot_id", lambda: "of the boot after it")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if not Path("/dev/loop-control").exists():
        pytest.skip("there are no loop devices here, as a disk of its own needs one")
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("there is no mkfs.ext4 here (e2fsprogs), as a disk of its own needs one")
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
    monkeypatch.setattr(Writer, "ask", lambda _self: None)  # its turn does not come
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


def test_a_mark_that_the_disk_does_not_take_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel tells of an error once: the next call says that all is well."""
    root = str(tmp_path / "image")
    images = Images(root, behind=True)
    images.settle()
    marks: list[str] = []

    def refused(_self: object, _why: str | None, diff_id: str, **_: object) -> None:
        marks.append(diff_id)
        raise PyrunError("meta.db: disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(layers, "sync", broken)
        patch.setattr(contents.Contents, "mark", refused)
        image = add(images, FIRST, "q.io/a:1")
        images.settle()
        assert marks and unwritten(images) == set(FIRST.diff_ids) and images.unwritten() == {image.id}
        assert "the disk did not take it" in images.find(image.id).damaged
        with pytest.raises(FailedPrecondition, match="the disk did not take it: .*input/output error"):
            images.hold(image.id, "c1")
        with contents.Ingest(images.contents) as ingest:
            assert not images.contents.lease(ingest, FIRST.diff_ids[0])
    wait_for(lambda: unwritten(images) == set(), PATIENCE_S, "the layers to be written out")
    images.close()
    images = Images(root)
    assert "the disk did not take it" in images.find(image.id).damaged and images.unwritten() == set()
    again = add(images, FIRST, "q.io/a:1")
    assert len(images.hold(again.id, "c1")) == 2
    images.close()


def spoil(disk: Disk, text: bytes) -> None:
    """The disk has other bytes in place of these, which memory has still."""
    subprocess.run(["sync", "-f", disk.root], check=True)
    with disk.file.open("r+b") as file:
        at = file.read().index(text)
        file.seek(at)
        file.write(bytes(len(text)))


def test_what_is_verified_is_what_the_disk_has(disk: Disk) -> None:
    images = Images(str(disk.root / "image"))
    text = b"as it came" * 100
    image = add(images, make_image([SHARED, Tar().file("f", text).bytes()]), "q.io/a:1")
    assert Path(images.lowers(image.id)[0], "f").read_bytes() == text
    spoil(disk, text)
    (found,) = verify(images, [image.id])
    assert [part.state for part in found.parts if part.kind == "layer"] == ["ok", "damaged"]
    images.close()


def test_who_is_killed_with_a_mark_that_the_disk_did_not_take(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next daemon is told of no error any more, so it looks at what the disk has."""
    root, text = str(disk.root / "image"), b"as it came" * 100
    made = make_image([SHARED, Tar().file("f", text).bytes()])

    def refused(*_: object, **__: object) -> None:
        raise PyrunError("meta.db: disk I/O error")

    def bring_and_die() -> None:
        monkeypatch.setattr(layers, "sync", broken)
        monkeypatch.setattr(contents.Contents, "mark", refused)
        images = Images(root, behind=True)
        add(images, made, "q.io/a:1")
        images.settle()
        assert set(images.contents.suspects) == set(made.diff_ids)

    in_a_child(bring_and_die)
    spoil(disk, text)
    images = Images(root, behind=True)
    images.settle()
    assert unwritten(images) == set()
    assert images.contents.database.words("SELECT diff_id FROM damaged") == [made.diff_ids[1]]
    with pytest.raises(FailedPrecondition, match="is not what was unpacked"):
        images.hold(made.id, "c1")
    images.close()


@pytest.mark.parametrize(
    "error",
    [
        PyrunError("pyrun-layer does not end"),
        OSError(11, "no process"),
        Told("sync"),
        sqlite3.OperationalError("disk I/O error"),  # of what ends a transaction on a disk that has failed
    ],
)
def test_what_has_failed_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Without another pull; and a person is told once that it fails, and that it does no longer."""
    said: list[str] = []
    left = [error] * 3
    real = layers.sync

    def at_last(directory: int, *, cancel: Callable[[], bool] | None = None) -> None:
        if left:
            raise left.pop()
        real(directory, cancel=cancel)

    monkeypatch.setattr(writer, "PAUSES_S", (0.01, 0.02))
    monkeypatch.setattr(layers, "sync", at_last)
    images = Images(str(tmp_path / "image"), behind=True, warn=said.append)
    add(images, FIRST, "q.io/a:1")
    wait_for(lambda: len(said) == 2, PATIENCE_S, "two messages")
    assert "can't be written out, which is tried again" in said[0] and "is written out again" in said[1]
    assert unwritten(images) == set() and images.trouble == ""
    images.close()


class Gate:
    """A disk that takes nothing until it is opened, and then all."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, deaf: bool = False) -> None:
        """deaf: who waits for it hears nothing else."""
        self.is_open, self.asked = threading.Event(), threading.Event()
        self._real, self._deaf = layers.sync, deaf
        monkeypatch.setattr(layers, "sync", self._sync)

    def _sync(self, directory: int, *, cancel: Callable[[], bool] | None = None) -> None:
        self.asked.set()
        while not self.is_open.wait(0.01):
            if cancel and cancel() and not self._deaf:
                raise PyrunError("cancelled")
        self._real(directory, cancel=cancel)


def test_an_orderly_stop_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(writer, "SAY_S", 0.01)
    monkeypatch.setattr(store, "STOP_S", PATIENCE_S)
    gate = Gate(monkeypatch)
    images = Images(str(tmp_path / "image"), behind=True, warn=said.append)
    image = add(images, FIRST, "q.io/a:1")
    stop = threading.Thread(target=lambda: images.close(wait=False))
    stop.start()
    wait_for(lambda: bool(said), PATIENCE_S, "a message")
    assert "60 s are waited at most" in said[0]
    gate.is_open.set()
    stop.join(PATIENCE_S)
    assert not stop.is_alive() and len(said) == 1
    monkeypatch.setattr(contents, "boot_id", lambda: "of the next boot")
    images = Images(str(tmp_path / "image"))
    assert [one.id for one in images.list()] == [image.id]
    images.close()


@pytest.mark.parametrize("deaf", [False, True])
def test_a_stop_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaf: bool) -> None:
    """deaf: a process that waits for a disk which hangs is not even ended by SIGKILL."""
    said: list[str] = []
    monkeypatch.setattr(store, "STOP_S", 0.01)
    if deaf:
        monkeypatch.setattr(store, "END_S", 0.01)
        monkeypatch.setattr(writer, "END_S", 0.01)
    gate = Gate(monkeypatch, deaf=deaf)
    images = Images(str(tmp_path / "image"), behind=True, warn=said.append)
    add(images, FIRST, "q.io/a:1")
    assert gate.asked.wait(PATIENCE_S)
    stop = threading.Thread(target=lambda: images.close(wait=False))
    stop.start()
    stop.join(PATIENCE_S)
    assert not stop.is_alive() and any("the disk has not got what came last" in text for text in said)
    assert ("does not answer" in said[-1]) == deaf
    gate.is_open.set()
    if deaf:
        images._writer.finish(None)
        images.close()
    images = Images(str(tmp_path / "image"), behind=True)
    images.settle()
    assert unwritten(images) == set()
    images.close()


def test_who_waits_long_for_the_disk_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(writer, "SLOW_S", 0.0)
    gate = Gate(monkeypatch)
    images = Images(str(tmp_path / "image"), behind=True, warn=said.append)
    add(images, FIRST, "q.io/a:1")
    wait_for(lambda: bool(said), PATIENCE_S, "a message")
    assert "has not taken what came last" in said[0] and images.trouble == said[0]
    gate.is_open.set()
    wait_for(lambda: not images.trouble, PATIENCE_S, "an end of the trouble")
    images.close()


def told_notes(images: Images) -> list[str]:
    """What `pyrun cri status` has, and the message of RuntimeReady."""
    return notes(cast("Cri", SimpleNamespace(images=images, notes=["of the start"])))


def test_a_disk_that_fails_in_the_midst(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real one, which takes neither the layers nor a mark: that is known, and told, and what it had not got is gone
    when it is there again."""
    said: list[str] = []
    first = Images(str(disk.root / "image"))
    add(first, FIRST, "q.io/a:1")
    first.close()
    gate = Gate(monkeypatch)
    images = Images(str(disk.root / "image"), behind=True, warn=said.append)
    add(images, SECOND, "q.io/b:1")
    images.tag("q.io/b:1", "q.io/c:1")  # now the disk has the image's row
    disk.cut()
    gate.is_open.set()
    images.settle()
    assert "can't be written out" in said[0] and images.trouble == said[0]
    assert told_notes(images) == ["of the start", said[0]]
    images.close(wait=False)
    assert any("the disk has not got what came last" in text for text in said)
    disk.boot(monkeypatch)
    images = Images(str(disk.root / "image"))
    assert images.damaged == [SECOND.id] and [image.id for image in images.list()] == [FIRST.id]
    images.close()
