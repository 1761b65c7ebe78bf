"""The store: an image is there whole or not at all, shared layers once, and nothing goes that somebody needs."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import threading
import time
from pathlib import Path

import pytest

from pyrun.errors import Aborted, FailedPrecondition, NotFound, PyrunError
from pyrun.image import database, layers, room, store
from pyrun.image.contents import Ingest
from pyrun.image.database import Database
from pyrun.image.reference import parse_reference
from pyrun.image.store import Image, Images
from tests.support.container.disk import unmount
from tests.support.layers import Tar
from tests.support.registry.made import Made, make_image, make_index, small_tar

BASE, TOP = small_tar("base"), small_tar("top")


@pytest.fixture
def images(tmp_path: Path) -> Images:
    return Images(str(tmp_path / "image"))


def add(images: Images, made: Made, name: str = "q.io/a:1") -> Image:
    return images.add(made.source(), [parse_reference(name)])


def layer_dirs(images: Images) -> set[str]:
    return set(os.listdir(f"{images.contents.root}/layers"))


@pytest.mark.parametrize("form", ["gzip", "zstd", ""])
@pytest.mark.parametrize("docker", [False, True])
def test_all_forms(images: Images, form: str, docker: bool) -> None:
    made = make_image([BASE, TOP], {"Cmd": ["sh"], "Env": ["A=1"], "Labels": {"l": "1"}}, form=form, docker=docker)
    image = add(images, made)
    assert (image.id, image.tags) == (made.id, ("q.io/a:1",))
    assert image.digests == (f"q.io/a@{made.top}",)
    assert (image.config.cmd, image.config.env, dict(image.config.labels)) == (("sh",), ("A=1",), {"l": "1"})
    lowers = images.hold(image.id, "c1")
    assert [os.path.basename(path) for path in lowers] == [d.removeprefix("sha256:") for d in reversed(made.diff_ids)]
    assert Path(lowers[0], "top").read_text() == "hello\n"
    assert os.listdir(f"{images.contents.root}/ingest") == []


def test_found_by_every_name(images: Images) -> None:
    made = make_image([BASE])
    image = add(images, made, "busybox")
    hexadecimal = made.id.removeprefix("sha256:")
    names = [
        "busybox",
        "docker.io/library/busybox:latest",
        made.id,
        hexadecimal,
        hexadecimal[:12],
        f"busybox@{made.top}",
    ]
    assert [images.find(name).id for name in names] == [image.id] * len(names)
    for name in ("busybox:2", f"q.io/busybox@{made.top}", "f" * 64, "sha256:" + "f" * 64):
        with pytest.raises(NotFound):
            images.find(name)


def test_platform_of_an_index(images: Images) -> None:
    wrong, right = make_image([TOP], architecture="s390x"), make_image([BASE])
    made = make_index(("linux/s390x", wrong), ("linux/amd64", right))
    image = add(images, made)
    assert image.id == right.id
    assert image.digests == (f"q.io/a@{made.top}",)
    with pytest.raises(PyrunError, match=r"(?s)no linux/amd64.*it has linux/s390x"):
        add(images, make_index(("linux/s390x", wrong)), "q.io/b:1")


def test_a_layer_of_two_images_is_there_once_and_stays(images: Images) -> None:
    first, second = add(images, make_image([BASE, TOP])), add(images, make_image([TOP]), "q.io/b:1")
    assert len(layer_dirs(images)) == 2
    images.remove(first.id)
    assert layer_dirs(images) == {second.file.diff_ids[0].removeprefix("sha256:")}
    images.remove("q.io/b:1")
    assert layer_dirs(images) == set()
    assert images.usage() == (0, 0)
    images.remove("q.io/b:1")  # there is none: no error


def test_usage_is_what_du_counts(images: Images) -> None:
    image = add(images, make_image([Tar().dir("./").file("big", os.urandom(300_000)).link("same", "big").bytes(), TOP]))
    told = [0, 0]
    for path in images.lowers(image.id):
        for place, option in ((0, "--block-size=1"), (1, "--inodes")):
            told[place] += int(subprocess.check_output(["du", "-s", option, path]).split()[0])
    assert images.usage() == tuple(told)


def test_what_is_held_stays(images: Images, tmp_path: Path) -> None:
    image = add(images, make_image([BASE]))
    images.hold(image.id, "c1")
    again = Images(str(tmp_path / "image"))  # as after a restart
    assert again.holders() == {"c1"}
    with pytest.raises(FailedPrecondition, match="in use by c1"):
        again.remove("q.io/a:1")
    assert again.prune(all=True) == (0, 0)
    again.release("c1")
    again.remove("q.io/a:1")
    with pytest.raises(NotFound):
        images.hold(image.id, "c2")


def test_a_tag_moves(images: Images) -> None:
    old, new = add(images, make_image([BASE])), add(images, make_image([TOP]))
    assert images.find("q.io/a:1").id == new.id
    assert images.find(old.id).tags == ()
    assert images.prune()[0] == 1
    assert [image.id for image in images.list()] == [new.id]


def test_untag_keeps_the_other_name(images: Images) -> None:
    image = add(images, make_image([BASE]))
    images.tag(image.id, "q.io/b:2")
    assert not images.untag("q.io/a:1")
    assert images.find(image.id).tags == ("q.io/b:2",)
    assert images.untag("q.io/b:2")
    assert images.list() == []


def test_layer_twice_and_none(images: Images) -> None:
    twice = add(images, make_image([BASE, TOP, BASE]))
    assert len(images.lowers(twice.id)) == 2
    assert os.path.basename(images.lowers(twice.id)[0]) == twice.file.diff_ids[0].removeprefix("sha256:")
    none = add(images, make_image([]), "q.io/none:1")
    (empty,) = images.lowers(none.id)
    assert os.listdir(empty) == []


def test_too_many_layers_are_refused_before_one_is_fetched(images: Images) -> None:
    made = make_image([small_tar(f"f{number}") for number in range(128)])
    with pytest.raises(PyrunError, match="128 layers"):
        add(images, made)
    assert layer_dirs(images) == set()


def test_wrong_diff_id_leaves_nothing(images: Images) -> None:
    made, other = make_image([BASE]), make_image([TOP])
    made.blobs[made.top] = made.blobs[made.top].replace(made.layers[0].encode(), other.layers[0].encode())
    size = len(other.blobs[other.layers[0]]), len(made.blobs[made.layers[0]])
    made.blobs[made.top] = made.blobs[made.top].replace(f'"size": {size[1]}'.encode(), f'"size": {size[0]}'.encode())
    made.blobs |= other.blobs
    with pytest.raises(PyrunError, match="which the image's config says"):
        add(images, made)
    assert (images.list(), layer_dirs(images), os.listdir(f"{images.contents.root}/ingest")) == ([], set(), [])


def test_sweep_takes_what_was_killed_and_spares_what_lives(tmp_path: Path) -> None:
    root = tmp_path / "image"
    images = Images(str(root))
    add(images, make_image([BASE]))
    (root / "ingest" / "dead").mkdir()
    (root / "ingest" / "dead" / "file").write_text("x")
    (root / "layers" / ("0" * 64)).mkdir()
    with Ingest(images.contents) as alive:
        again = Images(str(root))
        again.settle()
        assert os.listdir(root / "ingest") == [alive.name]
        assert len(layer_dirs(images)) == 1
        assert again.damaged == []


def test_what_can_t_be_removed_is_told_and_the_rest_goes(tmp_path: Path) -> None:
    root, said = tmp_path / "image", list[str]()
    images = Images(str(root))
    for name in ("a", "b", "c"):
        (root / "ingest" / name / "mount").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", root / "ingest" / "b" / "mount"], check=True)
    try:
        Images(str(root), warn=said.append).settle()
        assert os.listdir(root / "ingest") == ["b"]
        assert len(said) == 1 and "can't be removed" in said[0] and f"{root}/ingest" in said[0], said
    finally:
        unmount(root / "ingest" / "b" / "mount")
    Images(str(root), warn=said.append).settle()
    assert os.listdir(root / "ingest") == [] and len(said) == 1
    images.close()


def test_a_layer_that_was_removed_by_hand_takes_its_image_along(tmp_path: Path) -> None:
    images = Images(str(tmp_path / "image"))
    image = add(images, make_image([BASE]))
    subprocess.run(["rm", "-r", images.lowers(image.id)[0]], check=True)
    again = Images(str(tmp_path / "image"))
    assert (again.damaged, again.list()) == ([image.id], [])
    add(again, make_image([BASE]))


def test_threads_that_add_and_remove(images: Images) -> None:
    """Each thread ends with its own image whole, whatever the others took away."""
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(6):
                image = add(images, make_image([BASE, small_tar(f"{number}-{turn}")]), f"q.io/a{number}:1")
                assert all(map(os.listdir, images.hold(image.id, f"c{number}")))
                images.release(f"c{number}")
                images.remove(image.id)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert layer_dirs(images) == set()


def test_cve_2024_25621_no_directory_is_open(tmp_path: Path) -> None:
    (tmp_path / "image" / "layers").mkdir(parents=True)
    os.chmod(tmp_path / "image", 0o755)
    Images(str(tmp_path / "image"))
    for path in ("image", "image/layers", "image/ingest"):
        assert (tmp_path / path).stat().st_mode & 0o777 == 0o700


def test_a_removal_that_nobody_waits_for(images: Images) -> None:
    """It is gone for all who ask at once, and its files soon."""
    image = add(images, make_image([BASE, TOP]))
    other = add(images, make_image([BASE]), "q.io/b:1")
    images.remove(image.id, wait=False)
    assert [one.id for one in images.list()] == [other.id]
    assert layer_dirs(images) == {os.path.basename(path) for path in images.lowers(other.id)}
    images.settle()
    assert os.listdir(f"{images.contents.root}/ingest") == []
    assert add(images, make_image([BASE, TOP])).id == image.id


def test_many_removals_take_turns(images: Images) -> None:
    """A kubelet that makes room removes one image after the other, as fast as it gets answers."""
    ingest, turns = Path(images.contents.root, "ingest"), [f"waste-{number}" for number in range(3)]
    for name in turns:
        (ingest / name).mkdir()
        for number in range(600):
            (ingest / name / f"{number}").touch()
    for name in turns:
        images._clear_later([name])
    most, deadline = 0, time.monotonic() + 60
    while os.listdir(ingest) and time.monotonic() < deadline:
        most = max(most, len(_removing()))
        time.sleep(0.002)
    images.settle()
    assert most <= 1 and os.listdir(ingest) == []


def _removing() -> list[str]:
    """Our children that remove a layer."""
    found = []
    for children in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for pid in children.read_text().split():
                if "\0remove" in Path(f"/proc/{pid}/cmdline").read_text():
                    found.append(pid)
    return found


def test_who_ends_leaves_what_is_still_to_be_removed_to_the_next(images: Images) -> None:
    """Or a daemon would be away for as long as a disk takes to forget what was removed before."""
    waste = Path(images.contents.root, "ingest", "waste-1")
    (waste / "d").mkdir(parents=True)
    with pytest.raises(Aborted):  # the one that is under way
        layers.remove(images.contents.ingest, waste.name, cancel=lambda: True)
    assert waste.exists()
    with images._clearing_turn:
        images._clear_later([waste.name])
        images.contents.leaving.set()
    images.close(wait=False)
    assert waste.exists()
    Images(images.contents.root).close()
    assert not waste.exists()


def test_a_removal_where_the_disk_is_short(tmp_path: Path) -> None:
    """Who makes room finds it when the answer comes."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "none", tmp_path], check=True)
    try:
        images = Images(str(tmp_path / "image"))
        tree = Tar()
        for number in range(2000):
            tree.file(f"f{number}", b"hello\n")
        image = add(images, make_image([tree.bytes()]))
        assert not images.contents.is_short()
        with (tmp_path / "filler").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 76 << 20)
        images.remove(image.id, wait=False)
        assert os.listdir(f"{images.contents.root}/ingest") == []
        images.close()
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


def test_a_removal_where_the_disk_is_short_and_slow(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers before a kubelet's call ends, and what is under way goes on."""
    monkeypatch.setattr(store, "ROOM_S", 0.1)
    monkeypatch.setattr(images.contents, "is_short", lambda: True)
    image = add(images, make_image([BASE]))
    with images._clearing_turn:
        images.remove(image.id, wait=False)
        assert images.list() == []
        assert os.listdir(f"{images.contents.root}/ingest") != []
    images.settle()
    assert os.listdir(f"{images.contents.root}/ingest") == []


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
@pytest.mark.parametrize("again", [False, True], ids=["open", "opened"])
def test_a_removal_where_the_disk_is_full(tmp_path: Path, kind: str, again: bool) -> None:
    """To the last byte. By who has the store open, and by who opens it then; and a hold is no reason to keep it."""
    disk, at = tmp_path / "disk", tmp_path / "m"
    at.mkdir()
    disk.touch()
    os.truncate(disk, 256 << 20)
    if kind == "ext4":
        subprocess.run(["mkfs.ext4", "-q", disk], check=True)
    options = ["-t", "tmpfs", "-o", "size=256m", "none"] if kind == "tmpfs" else ["-o", "loop", disk]
    subprocess.run(["mount", *options, at], check=True)
    try:
        images = Images(str(at / "image"))
        image = add(images, make_image([BASE]))
        images.hold(image.id, "c1")
        if again:
            images.close()
        fill(at)
        if again:
            images = Images(str(at / "image"), layers="auto")
        images.release("c1")
        images.remove(image.id, wait=False)
        images.settle()
        assert (images.list(), os.listdir(at / "image/ingest"), os.listdir(at / "image/layers")) == ([], [], [])
        (at / "filler").unlink()
        images.close()
        Images(str(at / "image")).close()
        assert (at / "image/meta.db-spare").stat().st_blocks * 512 >= room.SPARE
    finally:
        subprocess.run(["umount", "-l", at], check=True)


def test_room_that_a_killed_process_did_not_get_is_made_again(tmp_path: Path) -> None:
    spare = tmp_path / "meta.db-spare"
    spare.touch()
    Database(str(tmp_path / "meta.db")).close()
    assert spare.stat().st_blocks * 512 >= room.SPARE


def test_a_database_that_others_hold_is_no_reason_to_give_up_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "PATIENCE_S", 0.1)
    path = tmp_path / "meta.db"
    Database(str(path)).close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(PyrunError, match="locked"):
            Database(str(path))
    assert (tmp_path / "meta.db-spare").exists()


def fill(directory: Path) -> None:
    """Until not a byte can be written any more."""
    with (directory / "filler").open("wb", buffering=0) as file:
        size = 64 << 20
        while size:
            try:
                file.write(bytes(size))
                os.fsync(file)  # what is not allocated yet may take more than it was thought to
            except OSError:
                size //= 4


def test_what_can_not_be_removed_holds_up_nothing_else(images: Images) -> None:
    """A mount in one layer, which somebody has left there."""
    image = add(images, make_image([BASE, TOP, Tar().dir("d").bytes()]))
    paths = [Path(path) for path in images.lowers(image.id)]
    for path in paths[:2]:
        (path / "m").mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "none", path / "m"], check=True)
    ingest = Path(images.contents.root, "ingest")
    try:
        with pytest.raises(PyrunError, match="m: .*busy"):
            images.remove(image.id)
        assert len(list(ingest.iterdir())) == 2
    finally:
        for path in ingest.glob("*/m"):
            subprocess.run(["umount", path], check=True)
    Images(images.contents.root).close()
    assert list(ingest.iterdir()) == []
