"""Layers as EROFS images: a store that makes them, mounts them when they are needed, and lets them go."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyrun.errors import FailedPrecondition, Unimplemented
from pyrun.image import erofs
from pyrun.image.archive.files import open_files
from pyrun.image.archive.read import find_images
from pyrun.image.archive.write import export
from pyrun.image.merged import read_file
from pyrun.image.reference import parse_reference
from pyrun.image.store import Image, Images
from tests.support.container.disk import mounts_below
from tests.support.layers import Tar, needs_images, snapshot, wait_unfilled
from tests.support.registry.made import Made, make_image

pytestmark = needs_images

BASE = Tar().dir("etc").file("etc/passwd", b"root:x:0:0\n").dir("tmp", mode=0o1777).file("bin/su", b"#!", mode=0o4755)
OVER = Tar().file("etc/.wh.passwd").file("etc/hosts", b"h").file("tmp/made", b"x")  # etc and tmp are implied
TWO = make_image([BASE.bytes(), OVER.bytes()])


def add(images: Images, made: Made = TWO, name: str = "q.io/a:1") -> Image:
    return images.add(made.source(), [parse_reference(name)])


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "image"
    for path in mounts_below(tmp_path):
        subprocess.run(["umount", "-l", path], check=True)


@pytest.fixture
def images(root: Path) -> Iterator[Images]:
    made = Images(str(root), layers="erofs")
    yield made
    made.close()


def test_image_of_two_layers(images: Images, root: Path) -> None:
    """What the layers only imply is as the lower one says, and their own layer is a directory: it copies few."""
    image = add(images)
    lowers = images.hold(image.id, "c")
    assert [Path(lower).name == "root" for lower in lowers] == [False, True, True]
    assert sorted(mounts_below(root)) == sorted(lowers[1:])
    assert read_file(lowers, "/etc/passwd", 100) is None and read_file(lowers, "/etc/hosts", 100) == b"h"
    merged = root.parent / "merged"
    merged.mkdir()
    subprocess.run(["mount", "-t", "overlay", "-o", f"ro,lowerdir={':'.join(lowers)}", "overlay", merged], check=True)
    try:
        assert os.listdir(merged / "etc") == ["hosts"] and os.stat(merged / "tmp").st_mode & 0o7777 == 0o1777
    finally:
        subprocess.run(["umount", merged], check=True)


def test_nothing_set_id_and_no_device_on_the_node(images: Images) -> None:
    """The layer's own mount, which anybody who gets to it could use, has neither."""
    lower = images.hold(add(images).id, "c")[-1]
    assert os.stat(f"{lower}/bin/su").st_mode & 0o7777 == 0o4755
    flags = os.statvfs(lower).f_flag
    assert flags & os.ST_NOSUID and flags & os.ST_NODEV and flags & os.ST_RDONLY
    with pytest.raises(OSError, match="Read-only file system"):
        Path(lower, "new").touch()


def test_usage_is_as_du_counts(images: Images, root: Path) -> None:
    add(images, make_image([Tar().file("big", os.urandom(1 << 20)).file("small", b"1").bytes()]))
    told = [
        subprocess.run(["du", "-s", how, root / "layers"], capture_output=True, check=True, text=True).stdout.split()[0]
        for how in ("--block-size=1", "--inodes")
    ]
    parent = os.stat(root / "layers").st_blocks * 512
    assert images.usage() == (int(told[0]) - parent, int(told[1]) - 1)


def test_removal_is_refused_while_used_and_leaves_nothing(images: Images, root: Path) -> None:
    image = add(images)
    images.hold(image.id, "c")
    with pytest.raises(FailedPrecondition, match="in use by c"):
        images.remove("q.io/a:1")
    assert len(mounts_below(root)) == 2
    images.release("c")
    images.remove("q.io/a:1")
    assert mounts_below(root) == [] and os.listdir(root / "layers") == os.listdir(root / "ingest") == []


def test_mounts_of_what_is_held_outlive_the_store(root: Path) -> None:
    """A daemon that ends leaves its containers' layers; the next one takes away what nobody holds any more."""
    first = Images(str(root), layers="erofs")
    held, other = add(first), add(first, make_image([Tar().file("other").bytes()]), "q.io/b:1")
    first.hold(held.id, "c")
    first.hold(other.id, "d")
    first.release("d")
    assert len(mounts_below(root)) == 3
    first.close()
    assert len(mounts_below(root)) == 2
    again = Images(str(root))
    assert len(mounts_below(root)) == 2 and len(again.lowers(held.id)) == 3
    again.release("c")
    again.close()
    assert mounts_below(root) == []


def test_both_kinds_in_one_store(root: Path) -> None:
    """A store may change its mind: layers that are here are used as they are."""
    plain = Images(str(root))
    add(plain, make_image([BASE.bytes()]), "q.io/base:1")
    plain.close()
    mixed = Images(str(root), layers="erofs")
    lowers = mixed.hold(add(mixed).id, "c")
    assert [os.path.basename(lower) == "root" for lower in lowers[1:]] == [True, False]
    assert read_file(lowers, "/etc/hosts", 100) == b"h"
    mixed.release("c")
    mixed.close()


def test_exported_image_is_the_same_in_both_kinds(images: Images, root: Path) -> None:
    made = make_image(
        [Tar().dir(".").dir("d").file("d/f", b"f", mode=0o4755).symlink("d/l", "f").file("d/.wh.w").bytes()]
    )
    add(images, made)  # with an entry for all: what is only implied is as old as the layer
    plain = Images(str(root.parent / "plain"))
    add(plain, made)
    written: list[Path] = []
    for store in (images, plain):
        path = root.parent / f"{len(written)}.tar"
        with path.open("wb") as file:
            export(store, [store.find("q.io/a:1")], file, "export")
        written.append(path)
    with open_files(str(written[0]), str(root)) as one, open_files(str(written[1]), str(root)) as two:
        assert [found.want.digest for found in find_images(one)] == [found.want.digest for found in find_images(two)]
    plain.close()


@pytest.mark.parametrize("damage", ["gone", "cut", "other"])
def test_damaged_image_is_told(images: Images, damage: str) -> None:
    """Who asks for it is told, and holds nothing afterwards."""
    image = add(images)
    path = Path(images.contents.path(image.file.diff_ids[0])).parent / erofs.IMAGE
    images.contents.unmount_idle()
    path.unlink()
    if damage != "gone":
        path.write_bytes(b"" if damage == "cut" else b"no file system" * 1000)
    with pytest.raises(FailedPrecondition, match="mount: ") as caught:
        images.hold(image.id, "c")
    assert "pull it again" in (caught.value.hint or "")
    assert images.holders() == frozenset()
    images.remove("q.io/a:1")


def test_where_it_cannot_be_it_is_refused(tmp_path: Path) -> None:
    """A tmpfs can't be under an image. Asked for: refused with the way out. `auto`: directories, and why."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path], check=True)
    try:
        with pytest.raises(Unimplemented, match="mount: block device required") as caught:
            Images(str(tmp_path / "image"), layers="erofs")
        assert "6.12" in str(caught.value.hint) and os.listdir(tmp_path / "image/ingest") == []
        auto = Images(str(tmp_path / "image"), layers="auto")
        assert auto.contents.kind == "dir" and auto.contents.why_dir is not None
        assert images_kinds(auto) == {"dir"}
        auto.close()
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def images_kinds(images: Images) -> set[str]:
    add(images)
    return set(images.contents.database.words("SELECT kind FROM layers"))


def test_auto_is_erofs_here(root: Path) -> None:
    images = Images(str(root), layers="auto")
    assert "erofs" in images_kinds(images)
    images.close()


def test_killed_while_it_tries_a_mount(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next start takes the mount away and then what is below it."""
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(erofs, "unmount", lambda _: os.kill(os.getpid(), signal.SIGKILL))
        try:
            Images(str(root), layers="erofs")
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL and len(mounts_below(root)) == 1
    again = Images(str(root))
    again.settle()
    assert mounts_below(root) == [] and os.listdir(root / "ingest") == []
    again.close()


def test_killed_at_any_moment_of_a_pull(root: Path) -> None:
    """SIGKILL at a moment that comes later each time: the next start has all of the image or nothing of it."""
    tar = Tar()
    for n in range(300):
        tar.file(f"{n}/f", os.urandom(20_000))
    made = make_image([tar.bytes(), BASE.bytes()])
    seen = set()
    for delay in (0.0, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, None):
        child = os.fork()
        if child == 0:
            try:
                add(Images(str(root), layers="erofs"), made)
                os._exit(0)
            except BaseException:
                os._exit(1)
        if delay is not None:
            time.sleep(delay)
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        wait_unfilled(root)
        again = Images(str(root), layers="erofs")
        again.settle()
        there = [image.id for image in again.list()]
        seen.add(len(there))
        assert os.listdir(root / "ingest") == [] and again.damaged == []
        assert len(os.listdir(root / "layers")) == (2 if there else 0)
        if there:
            lowers = again.hold(there[0], "c")
            assert len(snapshot(Path(lowers[-1]))) == 601
            again.release("c")
            again.remove("q.io/a:1")
        again.close()
        assert mounts_below(root) == []
    assert 1 in seen
