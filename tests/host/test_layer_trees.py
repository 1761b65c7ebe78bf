"""What pyrun-layer makes against what others make: GNU tar's tree of a real root, overlayfs' view of layers."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from pyrun.image import layers
from tests.support.layers import Tar, as_images, snapshot, unpack_into

ROOT = Path(__file__).resolve().parents[2] / ".cache" / "rootfs" / "debian"


@pytest.fixture(autouse=True, params=["dir", "erofs"])
def kind(request: pytest.FixtureRequest) -> Iterator[str]:
    """Both forms of a layer hold the same."""
    with as_images() if request.param == "erofs" else nullcontext():
        yield request.param


def gnu_tar(directory: Path, blob: bytes) -> None:
    command: list[str | Path] = [
        "tar",
        "-C",
        directory,
        "-xpf",
        "-",
        "--numeric-owner",
        "--xattrs",
        "--xattrs-include=*",
    ]
    subprocess.run(command, input=blob, check=True, stderr=subprocess.DEVNULL)


def both(tmp_path: Path, blob: bytes) -> tuple[dict[str, tuple[object, ...]], dict[str, tuple[object, ...]]]:
    for name in ("ours", "gnu"):
        (tmp_path / name).mkdir()
    found = unpack_into(tmp_path / "ours", blob)
    gnu_tar(tmp_path / "gnu", blob)
    assert found.bytes < 2 * len(blob) + (1 << 20), "a hole costs nothing"
    return snapshot(tmp_path / "ours"), snapshot(tmp_path / "gnu")


@pytest.mark.parametrize("form", ["pax", "gnu", "ustar"])
def test_debian_root_is_as_gnu_tar_has_it(tmp_path: Path, form: str) -> None:
    """All of usr/share's languages and documents left out: some thousand entries of every kind remain."""
    if not ROOT.exists():
        pytest.skip("no Debian root: ./bootstrap build makes it")
    command: list[str | Path] = [
        "tar",
        "-C",
        ROOT.resolve(),
        f"--format={form}",
        "--exclude=./dev",
        "--exclude=./usr/share",
        "-cf",
        "-",
        ".",
    ]
    blob = subprocess.run([*command, "--xattrs"] if form == "pax" else command, capture_output=True, check=True).stdout
    ours, gnu = both(tmp_path, blob)
    assert len(ours) > 1000 and ours == gnu


@pytest.mark.parametrize("form", ["pax", "gnu"])
def test_odd_trees_as_gnu_tar_has_them(tmp_path: Path, form: str) -> None:
    """Names of any bytes, long names, holes, times before 1970 and to the nanosecond, several names for one file."""
    source = tmp_path / "source"
    source.mkdir()
    names = [
        b"e\xcc\x81 decomposed",
        b"\xc3\xa9 composed",
        b"\xff\xfe none",
        b"new\nline",
        b" ",
        b"\\",
        b"x" * 255,
        b"-rf",
    ]
    for name in names:
        Path(os.fsdecode(os.path.join(os.fsencode(source), name))).write_bytes(name)
        os.symlink(name, os.path.join(os.fsencode(source), b"to" + name[:200]))
    deep = source / "/".join(["deep" * 20] * 20)
    deep.mkdir(parents=True)
    os.link(source / "-rf", deep / "other name")
    with open(deep / "holes", "wb") as file:
        for at in (1 << 20, 3 << 20, 5 << 30):
            file.seek(at)
            file.write(b"data")
        file.truncate(6 << 30)
    (source / "empty").touch()
    with open(source / "only hole", "wb") as file:
        file.truncate(1 << 30)
    for n, path in enumerate(sorted(source.rglob("*"), reverse=True)):
        # libarchive reads a fraction of a second before 1970 the wrong way round.
        ns = -n * 10**9 if n % 2 else n * 10**9 + (123_456_789 if form == "pax" else 0)
        os.utime(path, ns=(ns, ns), follow_symlinks=False)
    os.setxattr(source / "empty", "user.a", bytes(range(256)))
    command: list[str | Path] = ["tar", "-C", source, f"--format={form}", "--sparse", "-cf", "-", "."]
    blob = subprocess.run([*command, "--xattrs"] if form == "pax" else command, capture_output=True, check=True).stdout
    ours, gnu = both(tmp_path, blob)
    assert len(ours) > 2 * len(names) and ours == gnu


@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0"])
def test_every_sparse_format(tmp_path: Path, version: str) -> None:
    (tmp_path / "source").mkdir()
    with open(tmp_path / "source/f", "wb") as file:
        for n in range(40):
            file.seek(n * 1_000_000)
            file.write(b"%d" % n)
        file.truncate(1 << 30)
    command: list[str | Path] = [
        "tar",
        "-C",
        tmp_path / "source",
        "--format=pax",
        "--sparse",
        f"--sparse-version={version}",
        "-cf",
        "-",
        "f",
    ]
    ours, gnu = both(tmp_path, subprocess.run(command, capture_output=True, check=True).stdout)
    assert ours["f"] == gnu["f"]


def test_xattrs_and_set_id_survive_the_owner(tmp_path: Path) -> None:
    """chown takes set-id bits and capabilities away: they come after it. Writing takes capabilities away, too."""
    capability = b"\x01\x00\x00\x02\x00\x04\x00\x00" + bytes(12)
    records = {"SCHILY.xattr.security.capability": capability.decode("latin-1")}
    unpack_into(tmp_path, Tar().file("ping", b"x" * 9, uid=3, gid=4, mode=0o6755, pax_headers=records).bytes())
    st = os.stat(tmp_path / "ping")
    assert (stat.S_IMODE(st.st_mode), st.st_uid) == (0o6755, 3)
    assert os.getxattr(tmp_path / "ping", "security.capability") == capability


def test_set_gid_directory_hands_nothing_on(tmp_path: Path) -> None:
    """In a directory with set-gid a new file gets its group, and a directory the bit: the tar's word holds."""
    unpack_into(tmp_path, Tar().dir("d", mode=0o2775, gid=50).file("d/f").dir("d/e").file("d/i/f").bytes())
    for name in ("d/f", "d/e", "d/i", "d/i/f"):
        st = os.stat(tmp_path / name)
        assert st.st_gid == 0 and not st.st_mode & 0o2000, name


def test_default_acl_takes_nothing_from_a_mode(tmp_path: Path) -> None:
    """In a directory with a default ACL a new entry has no more rights than that gives: the tar's word holds."""
    entries = ((1, 6), (4, 4), (0x20, 0))  # u::rw-, g::r--, o::---
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, rights, 0) for tag, rights in entries)
    records = {"SCHILY.xattr.system.posix_acl_default": acl.decode()}
    tar = Tar().dir("d", pax_headers=records).file("d/f", b"x", mode=0o666).file("d/run", mode=0o4755, uid=7)
    unpack_into(tmp_path, tar.dir("d/e", mode=0o777).bytes())
    assert "system.posix_acl_default" in os.listxattr(tmp_path / "d")
    found = {name: stat.S_IMODE(os.stat(tmp_path / "d" / name).st_mode) for name in ("f", "run", "e")}
    assert found == {"f": 0o666, "run": 0o4755, "e": 0o777}


# ---- overlayfs' view


def overlay(tmp_path: Path, *blobs: bytes) -> dict[str, tuple[object, ...]]:
    """What a container sees of these layers, lowest first."""
    lower: list[str] = []
    for n, blob in enumerate(blobs):
        (tmp_path / f"l{n}").mkdir()
        unpack_into(tmp_path / f"l{n}", blob)
        lower.insert(0, f"l{n}")
    (tmp_path / "merged").mkdir()
    if len(lower) == 1:
        lower.append("merged")  # overlayfs wants two
    command: list[str | Path] = ["mount", "-t", "overlay", "-o", f"ro,lowerdir={':'.join(lower)}", "overlay", "merged"]
    subprocess.run(command, check=True, cwd=tmp_path)
    try:
        return snapshot(tmp_path / "merged")
    finally:
        subprocess.run(["umount", tmp_path / "merged"], check=True)


def paths(seen: dict[str, tuple[object, ...]]) -> set[str]:
    return set(seen) - {"."}


BASE = Tar().dir("d").file("d/old", b"1").file("d/kept", b"1").dir("e").file("e/old", b"1").file("f", b"1").bytes()


def test_whiteouts_hide_files_and_directories(tmp_path: Path) -> None:
    over = Tar().dir("d").file("d/.wh.old").file(".wh.e").file(".wh.f").file(".wh.never", b"data")
    assert paths(overlay(tmp_path, BASE, over.bytes())) == {"d", "d/kept"}


def test_opaque_directory_hides_what_is_below(tmp_path: Path) -> None:
    """Before, between and after the directory's own entries."""
    for n, order in enumerate(
        [("opq", "dir", "new"), ("dir", "opq", "new"), ("dir", "new", "opq"), ("new", "opq", "dir")]
    ):
        tar = Tar()
        for what in order:
            if what == "dir":
                tar.dir("d", mode=0o700)
            else:
                tar.file("d/.wh..wh..opq" if what == "opq" else "d/new")
        (tmp_path / str(n)).mkdir()
        seen = overlay(tmp_path / str(n), BASE, tar.bytes())
        assert paths(seen) == {"d", "d/new", "e", "e/old", "f"}, order
        assert int(seen["d"][0]) & 0o7777 == 0o700, "its mode is of its own entry"  # type: ignore[call-overload]


@pytest.mark.parametrize("first", ["whiteout", "directory"])
def test_directory_and_its_whiteout_in_one_layer(tmp_path: Path, first: str) -> None:
    """The whiteout is for the layers below alone: a new directory of that name lets nothing through."""
    tar = Tar()
    if first == "whiteout":
        tar.file(".wh.d").dir("d").file("d/new")
    else:
        tar.dir("d").file("d/new").file(".wh.d")
    tar.file(".wh.f").file("f", b"2").file("g", b"3").file(".wh.g")
    seen = overlay(tmp_path, BASE, tar.bytes())
    assert paths(seen) == {"d", "d/new", "e", "e/old", "f", "g"} and seen["f"][5] == b"2"


def test_implied_directory_over_a_whiteout(tmp_path: Path) -> None:
    seen = overlay(tmp_path, BASE, Tar().file(".wh.d").file("d/new").bytes())
    assert paths(seen) == {"d", "d/new", "e", "e/old", "f"}


def test_file_in_a_directorys_place_and_back(tmp_path: Path) -> None:
    middle, top = Tar().file("d", b"file").bytes(), Tar().dir("d").file("d/top").bytes()
    assert paths(overlay(tmp_path, BASE, middle, top)) == {"d", "d/top", "e", "e/old", "f"}


def test_later_entry_wins(tmp_path: Path, kind: str) -> None:
    """A layer that has a name twice, as a directory, a file and a link."""
    tar = Tar().dir("a").file("a/x/y", b"1").file("a", b"2").symlink("a", "b").dir("a", mode=0o711).file("a/z", b"3")
    found = unpack_into(tmp_path, tar.bytes())
    assert set(snapshot(tmp_path)) == {".", "a", "a/z"} and found.inodes == 3
    if kind == "erofs":
        return  # an image keeps the bytes of what was replaced
    assert found.bytes == sum(os.lstat(p).st_blocks * 512 for p in [tmp_path, *tmp_path.rglob("*")])


@pytest.mark.parametrize("kind", ["dir"], indirect=True)
def test_usage_is_as_du_counts(tmp_path: Path) -> None:
    """A directory that grows, hard links, long symbolic links, holes, replaced files."""
    tar = Tar().dir("many").symlink("s" * 50, "t" * 200).file("f", os.urandom(10_000)).link("g", "f").file("f", b"1")
    for n in range(900):
        tar.file(f"many/{'n' * 150}{n}", b"x" * (n % 3))
    tar.dir("many", mode=0o700).add("h", tarfile.REGTYPE, bytes(100_000))
    found = unpack_into(tmp_path, tar.bytes())
    told = subprocess.run(["du", "-s", "--block-size=1", tmp_path], capture_output=True, check=True, text=True).stdout
    inodes = subprocess.run(["du", "-s", "--inodes", tmp_path], capture_output=True, check=True, text=True).stdout
    assert (found.bytes, found.inodes) == (int(told.split()[0]), int(inodes.split()[0]))


@pytest.mark.parametrize("kind", ["dir"], indirect=True)
def test_remove_leaves_nothing(tmp_path: Path) -> None:
    """Whiteouts, opaque directories, and what has no permission at all."""
    (tmp_path / "l").mkdir()
    unpack_into(tmp_path / "l", Tar().dir("d", mode=0).file("d/f", mode=0).file(".wh.x").file("d/.wh..wh..opq").bytes())
    parent = os.open(tmp_path, os.O_RDONLY)
    layers.remove(parent, "l")
    os.close(parent)
    assert os.listdir(tmp_path) == []
