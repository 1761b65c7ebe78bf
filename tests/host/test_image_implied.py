"""A directory that a layer has entries in, and no entry for, stays what the layers below made of it."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pyrun.errors import PyrunError
from pyrun.image import layers
from pyrun.image.config import LAYERS_MOST
from pyrun.image.reference import parse_reference
from pyrun.image.store import Image, Images
from tests.support.layers import Tar
from tests.support.registry.made import make_image

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(layers.what_is_missing() is not None, reason=str(layers.what_is_missing())),
]


@pytest.fixture
def images(tmp_path: Path) -> Iterator[Images]:
    made = Images(str(tmp_path / "image"))
    yield made
    made.close()


def tar(*entries: tuple[str, int, int] | str) -> bytes:
    """(directory, mode, owner), or a file's name."""
    made = Tar()
    for entry in entries:
        if isinstance(entry, str):
            made.file(entry, b"x")
        else:
            made.dir(entry[0], mode=entry[1], uid=entry[2], gid=entry[2])
    return made.bytes()


def add(images: Images, *tars: bytes, name: str = "q.io/a:1") -> Image:
    return images.add(make_image(list(tars), form="").source(), [parse_reference(name)])


@contextmanager
def mounted(images: Images, image: Image, at: Path) -> Iterator[Path]:
    """As overlayfs shows the image."""
    at.mkdir(exist_ok=True)
    lowers = images.lowers(image.id)
    if len(lowers) == 1:
        lowers = (*lowers, f"{images.contents.root}/empty")
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", "lowerdir=" + ":".join(lowers), at], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", at], check=True)


def look(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid


BASE = tar(("tmp", 0o1777, 0), ("home", 0o711, 5), ("home/me", 0o700, 1000), "home/me/old")


def test_mode_and_owner_are_the_lower_layers(images: Images, tmp_path: Path) -> None:
    image = add(images, BASE, tar("tmp/a", "home/me/.profile", "new/b"), tar("home/me/deep/c"))
    with mounted(images, image, tmp_path / "m") as root:
        assert look(root / "tmp") == (0o1777, 0, 0)
        assert look(root / "home") == (0o711, 5, 5)
        assert look(root / "home/me") == (0o700, 1000, 1000)
        assert look(root / "new") == look(root / "home/me/deep") == (0o755, 0, 0)
        assert sorted(os.listdir(root / "home/me")) == [".profile", "deep", "old"]
        assert (root / "home/me").stat().st_mtime == (Path(images.lowers(image.id)[-1]) / "home/me").stat().st_mtime


def test_an_entry_above_counts(images: Images, tmp_path: Path) -> None:
    image = add(images, BASE, tar("home/me/a"), tar(("home", 0o750, 7), ("home/me", 0o755, 0)))
    assert len(images.lowers(image.id)) == 3
    with mounted(images, image, tmp_path / "m") as root:
        assert (look(root / "home"), look(root / "home/me")) == ((0o750, 7, 7), (0o755, 0, 0))


def test_what_was_removed_in_between_says_nothing(images: Images, tmp_path: Path) -> None:
    image = add(images, BASE, tar("home/.wh.me"), tar("home/me/a"))
    with mounted(images, image, tmp_path / "m") as root:
        assert look(root / "home") == (0o711, 5, 5)
        assert look(root / "home/me") == (0o755, 0, 0) and os.listdir(root / "home/me") == ["a"]


def test_no_layer_is_made_where_none_is_needed(images: Images) -> None:
    image = add(images, BASE, tar("var/a"), tar("var/b"))
    assert len(images.lowers(image.id)) == 3


def test_it_is_the_images_own_and_goes_with_it(images: Images) -> None:
    one = add(images, BASE, tar("tmp/a"))
    two = add(images, tar(("tmp", 0o700, 3)), tar("tmp/a"), name="q.io/b:1")
    (top, *rest), (other, *others) = images.lowers(one.id), images.lowers(two.id)
    assert top != other and rest[0] == others[0]
    assert (look(Path(top, "tmp")), look(Path(other, "tmp"))) == ((0o1777, 0, 0), (0o700, 3, 3))
    again = add(images, BASE, tar("tmp/a"))
    assert images.lowers(again.id) == (top, *rest)
    images.remove(one.id)
    assert not Path(top).exists() and Path(other).exists()
    images.remove(two.id)
    assert images.usage() == (0, 0)


def test_one_layer_too_many(images: Images) -> None:
    rest = [tar(f"x{n}") for n in range(LAYERS_MOST - 2)]
    with pytest.raises(PyrunError, match=f"{LAYERS_MOST} layers, and one more"):
        add(images, BASE, *rest, tar("tmp/a"))
    assert images.list() == [] and os.listdir(f"{images.contents.root}/ingest") == []


@pytest.mark.parametrize(("version", "newer"), [(1, ("implied", "used")), (2, ("used",)), (3, ())])
def test_a_store_of_an_older_pyrun_is_taken_over(images: Images, version: int, newer: tuple[str, ...]) -> None:
    image = add(images, BASE)
    images.close()
    with sqlite3.connect(f"{images.contents.root}/meta.db") as old:
        for table in (*newer, "damaged", "unwritten"):
            old.execute(f"DROP TABLE {table}")
        for column in ("layers DROP COLUMN content", "images DROP COLUMN manifest_digest"):
            old.execute(f"ALTER TABLE {column}")
        old.execute(f"PRAGMA user_version = {version}")
    old.close()
    again = Images(images.contents.root)
    assert again.find("q.io/a:1").id == image.id
    assert len(again.lowers(add(again, BASE, tar("tmp/a")).id)) == 3
    again.close()
