"""The store, killed by SIGKILL before every single thing that it does to the disk: to a directory, a name, a row."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyrun.image import layers
from pyrun.image.database import Database
from pyrun.image.reference import parse_reference
from pyrun.image.store import Images
from tests.support.layers import wait_unfilled
from tests.support.registry.made import make_image, small_tar

SHARED = small_tar("shared")
FIRST = make_image([SHARED, small_tar("first")])
SECOND = make_image([SHARED, small_tar("second")])
NAMES = [parse_reference("q.io/a:1")]
POINTS_MOST = 100


def killed_before(number: int, do: Callable[[], None]) -> bool:
    """Whether a child that runs `do` is killed before the numbered point; it is not when there are fewer."""
    child = os.fork()
    if child == 0:
        try:
            _arm(number)
            do()
            os._exit(0)
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL, status
    return status != 0


def _arm(number: int) -> None:
    left = [number]

    def point() -> None:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def before(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*argv: Any, **more: Any) -> Any:
            point()
            return function(*argv, **more)

        return call

    places: list[tuple[Any, tuple[str, ...]]] = [
        (os, ("rename", "mkdir", "fsync", "rmdir")),
        (fcntl, ("flock",)),
        (layers, ("unpack", "remove")),
        (Database, ("transaction", "committing")),
    ]
    for place, names in places:
        for name in names:
            setattr(place, name, before(getattr(place, name)))


def add(root: Path) -> None:
    images = Images(str(root))
    images.settle()
    images.add(SECOND.source(), [parse_reference("q.io/b:1")])
    images.close()


def remove(root: Path) -> None:
    images = Images(str(root))
    images.settle()
    images.remove("q.io/a:1")
    images.close()


@pytest.mark.parametrize("do", [add, remove], ids=lambda do: do.__name__)
def test_killed_before_every_step(tmp_path: Path, do: Callable[[Path], None]) -> None:
    """Afterwards each image is there whole or not at all, and no directory is without an image."""
    model = Images(str(tmp_path / "model"))
    model.add(FIRST.source(), NAMES)
    model.close()
    ends = set()
    for number in range(POINTS_MOST):
        root = tmp_path / str(number)
        shutil.copytree(tmp_path / "model", root, symlinks=True)
        alive = not killed_before(number, lambda root=root: do(root))  # type: ignore[misc]
        wait_unfilled(root)
        again = Images(str(root))
        again.settle()
        there = {image.id for image in again.list()}
        wanted = {layer for made in (FIRST, SECOND) if made.id in there for layer in made.diff_ids}
        assert again.damaged == []
        assert set(os.listdir(root / "layers")) == {layer.removeprefix("sha256:") for layer in wanted}
        assert os.listdir(root / "ingest") == []
        for image in there:
            assert all(os.listdir(lower) for lower in again.lowers(image))
        ends.add(frozenset(there))
        do(root)
        again.close()
        shutil.rmtree(root)
        if alive:
            break
    else:
        pytest.fail("it has more points than that")
    before, after = {FIRST.id}, {FIRST.id, SECOND.id} if do is add else set()
    assert ends == {frozenset(before), frozenset(after)}
    assert number > 10
