"""Layers that are in order: pyrun-layer makes of them what GNU tar does, in the form that overlayfs wants."""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from pyrun.errors import Aborted, DeadlineExceeded, PyrunError, Unimplemented
from pyrun.image import layer_program, layers
from tests.support.layers import Tar, unpack_into

GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"


def test_tree(tmp_path: Path) -> None:
    """Owners, modes with set-id, times, links, what is only implied; bytes and inodes as du has them."""
    tar = Tar().dir("a", mode=0o1777, mtime=5).file("a/f", b"hello", mode=0o4755, uid=7, gid=8).link("a/hard", "a/f")
    tar.symlink("a/sym", "/etc/passwd", uid=9).file("x/y/z", b"1").fifo("a/pipe", mode=0o640)
    found = unpack_into(tmp_path, tar.bytes())
    assert found.diff_id == "sha256:" + hashlib.sha256(tar.bytes()).hexdigest()
    a, f = os.stat(tmp_path / "a"), os.stat(tmp_path / "a/f")
    assert (stat.S_IMODE(a.st_mode), a.st_mtime) == (0o1777, 5), "writing in it has not changed its time"
    assert (stat.S_IMODE(f.st_mode), f.st_uid, f.st_gid, f.st_nlink, f.st_mtime) == (0o4755, 7, 8, 2, 1e9)
    assert os.readlink(tmp_path / "a/sym") == "/etc/passwd" and os.lstat(tmp_path / "a/sym").st_uid == 9
    assert stat.S_ISFIFO(os.lstat(tmp_path / "a/pipe").st_mode)
    assert found.implied == (b"x", b"x/y") and stat.S_IMODE(os.stat(tmp_path / "x").st_mode) == 0o755
    seen = {s.st_ino: s.st_blocks * 512 for p in [tmp_path, *tmp_path.rglob("*")] for s in [os.lstat(p)]}
    assert (found.bytes, found.inodes) == (sum(seen.values()), len(seen))


def feed(pipe: int, blob: bytes) -> None:
    for at in range(0, len(blob), 100):
        os.write(pipe, blob[at : at + 100])
    os.close(pipe)


def test_gzip_from_a_file_and_a_pipe(tmp_path: Path) -> None:
    blob = gzip.compress(Tar().file("f", b"x" * 300_000).bytes())
    digest = "sha256:" + hashlib.sha256(blob).hexdigest()
    (tmp_path / "blob").write_bytes(blob)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    into = os.open(tmp_path / "one", os.O_RDONLY)
    found = layers.unpack(str(tmp_path / "blob"), GZIP, into, digest=digest, size=len(blob))
    os.close(into)
    assert found.digest == digest and (tmp_path / "one/f").read_bytes() == b"x" * 300_000
    read, write = os.pipe()
    threading.Thread(target=feed, args=(write, blob)).start()
    into = os.open(tmp_path / "two", os.O_RDONLY)
    assert layers.unpack(read, None, into).diff_id == found.diff_id
    os.close(into)
    os.close(read)


@pytest.mark.parametrize("wrong", [{"diff_id": "sha256:" + "0" * 64}, {"digest": "sha256:" + "0" * 64}, {"size": 1}])
def test_wrong_digest_or_length(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(PyrunError, match="not sha256|not the|longer than"):
        unpack_into(tmp_path, Tar().file("f", b"x").bytes(), **wrong)


def test_unknown_kinds(tmp_path: Path) -> None:
    for unknown in ({"media_type": "application/vnd.oci.image.layer.v1.tar+xz"}, {"diff_id": "md5:00"}):
        with pytest.raises(Unimplemented):
            unpack_into(tmp_path, b"", **unknown)


def test_cancel_and_patience(tmp_path: Path) -> None:
    """A pipe that never ends: the program is killed and reaped, no descriptor stays."""
    before = sorted(os.listdir("/proc/self/fd"))
    read, write = os.pipe()
    into = os.open(tmp_path, os.O_RDONLY)
    for how, error in (
        ({"cancel": lambda: True}, Aborted),
        ({"patience_s": 0.3}, DeadlineExceeded),
        ({"deadline_s": 0.3}, DeadlineExceeded),
    ):
        with pytest.raises(error):
            layers.unpack(read, None, into, **how)
    for fd in (read, write, into):
        os.close(fd)
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_remove(tmp_path: Path) -> None:
    """Deeper than descriptors or a path reach; a link's target stays."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").touch()
    (tmp_path / "layer").mkdir()
    (tmp_path / "layer/link").symlink_to(tmp_path / "kept")
    fd = os.open(tmp_path / "layer", os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d" * 20, dir_fd=fd)
        (os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd)))
        deeper = os.open("d" * 20, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(fd)
    parent = os.open(tmp_path, os.O_RDONLY)
    layers.remove(parent, "layer")
    layers.remove(parent, "layer")
    os.close(parent)
    assert os.listdir(tmp_path) == ["kept"] and os.listdir(tmp_path / "kept") == ["file"]


def test_an_empty_directory_needs_no_process_to_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is what a pull that has ended well leaves of its own."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "full/d").mkdir(parents=True)
    (tmp_path / "link").symlink_to("full")
    runs: list[str] = []
    monkeypatch.setattr(layer_program, "run", lambda verb, *_, **__: runs.append(verb))
    parent = os.open(tmp_path, os.O_RDONLY)
    try:
        layers.remove(parent, "empty")
        layers.remove(parent, "empty")
        assert not (tmp_path / "empty").exists() and runs == []
        with pytest.raises(OSError):
            layers.remove(parent, "link")
        assert (tmp_path / "full/d").is_dir() and runs == []
        with pytest.raises(OSError):  # it is still there, since nothing has run
            layers.remove(parent, "full")
        assert runs == ["remove"]
    finally:
        os.close(parent)
