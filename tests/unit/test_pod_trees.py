"""Removal of what a container has filled."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pyrun.pod.trees import remove_tree


def test_a_tree_deeper_than_a_path_is_long(tmp_path: Path) -> None:
    top = tmp_path / "tree"
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("deeper", dir_fd=here)
        Path(f"/proc/self/fd/{here}/file").touch()
        below = os.open("deeper", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    remove_tree(str(top))
    assert list(tmp_path.iterdir()) == []


def test_no_link_is_followed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    tree = tmp_path / "tree"
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/out").symlink_to(kept)
    (tree / "a/b/up").symlink_to("../../../kept")
    remove_tree(str(tree))
    assert not tree.exists() and (kept / "file").exists()
    tree.symlink_to(kept)
    with pytest.raises(OSError, match="Not a directory|symbolic"):
        remove_tree(str(tree))
    assert (kept / "file").exists()


def test_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    remove_tree(str(tmp_path / "none"))
    remove_tree(str(tmp_path / "none/deeper"))
    assert list(tmp_path.iterdir()) == []
