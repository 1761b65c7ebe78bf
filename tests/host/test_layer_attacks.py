"""Layers as an attacker would make them, tried against pyrun-layer as pyrun runs it: as root, beside what must stay.

Each CVE here is of a peer; the test is named after it. `outside` is what lies beside the layer's directory: after every
test it is as it was.
"""

from __future__ import annotations

import errno
import gzip
import os
import stat
import struct
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from pyrun.errors import PyrunError, ResourceExhausted
from pyrun.image import layer_program, layers
from tests.support.layers import Tar, as_images, snapshot, unpack_into, unpack_plainly

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def sanitized() -> Path:
    """pyrun-layer under ASan and UBSan, and without its sandbox: so what holds here does not hold by landlock."""
    subprocess.run([sys.executable, REPO / "cffi_build" / "build.py", "--asan-layer"], check=True)
    return REPO / ".cache" / "hosted" / "pyrun-layer"


@pytest.fixture(autouse=True, params=["installed", "sanitized", "image"])
def program(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each attack is tried against both, and against the one under ASan where it makes an image of the layer."""
    if request.param != "installed":
        monkeypatch.setattr(layer_program, "PROGRAM", request.getfixturevalue("sanitized"))
    with as_images() if request.param == "image" else nullcontext():
        yield


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A directory that no layer may change or read."""
    canary = tmp_path / "outside"
    canary.mkdir()
    (canary / "secret").write_text("secret")
    (canary / "secret").chmod(0o600)
    before = snapshot(canary)
    yield canary
    assert snapshot(canary) == before


@pytest.fixture
def layer(tmp_path: Path, outside: Path) -> Path:
    made = tmp_path / "layer"
    made.mkdir()
    return made


def refused(layer: Path, blob: bytes, match: str, **more: Any) -> str:
    with pytest.raises(PyrunError, match=match) as caught:
        unpack_into(layer, blob, **more)
    return str(caught.value)


# ---- names and links that lead out


@pytest.mark.parametrize("name", ["../outside/x", "a/../../outside/x", "..", "a/../..", "./../outside/secret"])
def test_name_leads_out(layer: Path, name: str) -> None:
    refused(layer, Tar().file(name, b"x").bytes(), "leads out of the layer")


@pytest.mark.parametrize("name", ["/etc/passwd", "//etc//passwd", "/./etc/passwd", "x/../etc/passwd", "./etc/./passwd"])
def test_absolute_names_are_the_layers_own(layer: Path, name: str) -> None:
    before = Path("/etc/passwd").read_bytes()
    unpack_into(layer, Tar().file(name, b"x").bytes())
    assert (layer / "etc/passwd").read_bytes() == b"x" and Path("/etc/passwd").read_bytes() == before


@pytest.mark.parametrize("target", ["{}", "../outside", "../../../../../../{}", "/proc/self/root/{}", "/proc/self/cwd"])
def test_cve_2021_32760_zip_slip_by_symlink(layer: Path, outside: Path, target: str) -> None:
    """The link leads out, an entry goes through it: the layer is its root, so there is nothing where it leads."""
    tar = Tar().symlink("out", target.format(outside)).file("out/secret", b"pwned", mode=0o777)
    refused(layer, tar.bytes(), "entry out: a symbolic link that leads nowhere has entries beneath it")


def test_symlink_within_the_layer_is_followed_as_peers_do(layer: Path) -> None:
    tar = Tar().dir("usr/lib", mode=0o755).symlink("lib", "usr/lib").symlink("abs", "/usr").file("lib/a", b"1")
    unpack_into(layer, tar.file("abs/lib/b", b"2").file("abs/new/c", b"3").bytes())
    assert sorted(os.listdir(layer / "usr/lib")) == ["a", "b"] and (layer / "usr/new/c").read_bytes() == b"3"


def test_symlink_with_dots_stays_in(layer: Path) -> None:
    """`..` above the root is the root, as in a chroot."""
    unpack_into(layer, Tar().dir("in").symlink("l", "../../../in").file("l/f", b"x").bytes())
    assert (layer / "in/f").read_bytes() == b"x"


def test_directory_swapped_for_a_symlink_midway(layer: Path, outside: Path) -> None:
    """It is the parent that is open when it is replaced."""
    tar = Tar().dir("d").file("d/f", b"x").symlink("d", str(outside)).file("d/secret", b"pwned")
    refused(layer, tar.bytes(), "entry d: a symbolic link that leads nowhere")


def test_parent_replaced_while_it_is_open(layer: Path) -> None:
    tar = Tar().file("d/e/f", b"x").file("d", b"file now").symlink("d", "elsewhere").dir("d").file("d/g", b"y")
    unpack_into(layer, tar.bytes())
    assert os.listdir(layer / "d") == ["g"]


def test_symlink_is_replaced_and_not_written_through(layer: Path, outside: Path) -> None:
    tar = Tar()
    for n, make in enumerate((tar.file, tar.dir, tar.fifo)):
        tar.symlink(f"l{n}", str(outside / "secret"))
        make(f"l{n}", mode=0o777)
    unpack_into(layer, tar.bytes())
    kinds = [stat.S_IFMT(os.lstat(layer / f"l{n}").st_mode) for n in range(3)]
    assert kinds == [stat.S_IFREG, stat.S_IFDIR, stat.S_IFIFO]


@pytest.mark.parametrize("target", ["../outside/secret", "a/../../outside/secret"])
def test_hard_link_leads_out(layer: Path, target: str) -> None:
    refused(layer, Tar().link("l", target).bytes(), "leads out of the layer")


@pytest.mark.parametrize("target", ["{}/secret", "out/secret", "etc/passwd", "/etc/passwd", "missing"])
def test_hard_link_to_what_the_layer_has_not(layer: Path, outside: Path, target: str) -> None:
    tar = Tar().symlink("out", str(outside)).symlink("etc", "/etc").link("l", target.format(outside))
    refused(layer, tar.bytes(), "entry l: a hard link to what the layer does not have")


def test_cve_2021_32760_mode_through_a_hard_link_to_a_symlink(layer: Path, outside: Path) -> None:
    """The link's own mode and owner are for nobody, least of all for where the symbolic link leads."""
    tar = Tar().symlink("s", str(outside / "secret")).link("h", "s", mode=0o777, uid=5)
    unpack_into(layer, tar.file("f", b"x", mode=0o600).link("g", "f", mode=0o4777, uid=5).bytes())
    assert stat.S_ISLNK(os.lstat(layer / "h").st_mode)
    assert stat.S_IMODE(os.stat(layer / "f").st_mode) == 0o600 and os.stat(layer / "f").st_uid == 0


def test_hard_link_to_itself_and_to_a_directory(layer: Path) -> None:
    unpack_into(layer, Tar().file("f", b"x").link("f", "f").link("./f", "/f").bytes())
    assert (layer / "f").read_bytes() == b"x"
    refused(layer, Tar().dir("d").link("l", "d").bytes(), "a hard link to a directory")
    refused(layer, Tar().file(".wh.w").link("l", "w").bytes(), "a hard link to a whiteout")


def test_cve_2021_29136_the_root_of_the_layer_is_a_directory(layer: Path, outside: Path) -> None:
    unpack_into(layer, Tar().dir("./", mode=0o711, uid=3, mtime=7).file("f").dir("/", mode=0o700, mtime=8).bytes())
    st = os.stat(layer)
    assert (stat.S_IMODE(st.st_mode), st.st_uid, st.st_mtime) == (0o700, 0, 8)
    for tar in (Tar().symlink(".", str(outside)), Tar().link("/", "f"), Tar().fifo(".")):
        refused(layer, tar.bytes(), "in the place of the layer's root|without a name")


# ---- whiteouts, devices, attributes


@pytest.mark.parametrize(
    "name", [".wh.", ".wh..", ".wh...", ".wh..wh.plnk", ".wh..wh.aufs", ".wh..wh.orph/x", "d/.wh..wh..opq/x", ".wh.a/b"]
)
def test_whiteouts_that_are_none(layer: Path, name: str) -> None:
    (layer / "d").mkdir()
    refused(layer, Tar().file(name).bytes(), "whiteout")
    assert layer.is_dir()


def test_whiteout_of_any_kind_of_entry(layer: Path, outside: Path) -> None:
    """aufs made them of hard links; an attacker may of a symbolic one. The name decides."""
    tar = Tar().link(".wh.a", "nowhere").symlink(".wh.b", str(outside)).dir(".wh.c").device(".wh.d", 8, 0)
    unpack_into(layer, tar.bytes())
    for name in "abcd":
        st = os.lstat(layer / name)
        assert stat.S_ISCHR(st.st_mode) and st.st_rdev == 0


def test_whiteout_through_a_symlink_stays_in(layer: Path, outside: Path) -> None:
    tar = Tar().symlink("out", str(outside)).file("out/.wh.secret")
    refused(layer, tar.bytes(), "leads nowhere")
    refused(layer, Tar().symlink("out", str(outside)).file("out/.wh..wh..opq").bytes(), "leads nowhere")


def test_devices_are_not_made(layer: Path) -> None:
    """Nor a whiteout by the back door: 0:0 as a device of the tar."""
    tar = Tar().file("was", b"x").device("was", 1, 3).device("null", 1, 3).device("white", 0, 0)
    tar.add("disk", tarfile.BLKTYPE, devmajor=8, devminor=0)
    found = unpack_into(layer, tar.bytes())
    assert os.listdir(layer) == [] and found.devices == 4


def test_extended_attributes(layer: Path) -> None:
    capability = b"\x01\x00\x00\x02\x00\x04\x00\x00" + bytes(12)
    wanted = {"security.capability": capability, "user.kept": b"1\x00\xff"}
    forged = {
        "trusted.overlay.redirect": b"/etc",
        "trusted.overlay.opaque": b"y",
        "trusted.overlay.metacopy": b"",
        "user.overlay.opaque": b"y",
        "security.ima": b"x",
        "security.evm": b"x",
        "security.selinux": b"system_u:object_r:shadow_t:s0",
    }
    records = {
        f"SCHILY.xattr.{name}": value.decode("utf-8", "surrogateescape") for name, value in (wanted | forged).items()
    }
    unpack_into(layer, Tar().file("f", b"x", pax_headers=records).dir("d", pax_headers=records).bytes())
    for name in ("f", "d"):
        have = {key: os.getxattr(layer / name, key) for key in os.listxattr(layer / name)}
        if name == "d":
            wanted = {"user.kept": wanted["user.kept"], "security.capability": capability}
        assert have == wanted


@pytest.mark.parametrize("uid", [2**32 - 1, 2**32, -1, 2**40])
def test_owner_out_of_range(layer: Path, uid: int) -> None:
    refused(layer, Tar().file("f", uid=uid).bytes(), "owner out of range|[Mm]alformed|damaged|can't")


def test_high_owner(layer: Path) -> None:
    unpack_into(layer, Tar().file("f", uid=2**32 - 2, gid=2**31).bytes())
    assert (os.stat(layer / "f").st_uid, os.stat(layer / "f").st_gid) == (2**32 - 2, 2**31)


# ---- bombs


def test_bomb_by_ratio(layer: Path) -> None:
    blob = gzip.compress(Tar().file("zeros", bytes(100 << 20)).bytes(), 1)
    refused(layer, blob, "more than 200 times as large as its blob")


def test_bomb_by_size(layer: Path) -> None:
    blob = gzip.compress(Tar().file("zeros", bytes(5 << 20)).bytes(), 1)
    refused(layer, blob, "larger than 1048576 bytes, the limit", limits=layers.Limits(bytes=1 << 20))


def test_bomb_by_entries(layer: Path) -> None:
    tar = Tar()
    for n in range(100):
        tar.file(f"a{n}/b{n}/c{n}")
    text = refused(layer, tar.bytes(), "more than 50 entries, the limit", limits=layers.Limits(entries=50))
    assert text.startswith("entry a16/")  # three for each: implied directories count


def test_long_names(layer: Path) -> None:
    deep = "/".join(["d" * 100] * 40) + "/" + "f" * 55
    assert len(deep) == 4095
    unpack_into(layer, Tar().file(deep, b"x").bytes())
    refused(layer, Tar().file("x" + deep).bytes(), "name longer than 4095 bytes")
    refused(layer, Tar().file("n" * 256).bytes(), "file name too long")
    refused(layer, Tar().symlink("l", "t" * 4096).bytes(), "symbolic link")
    refused(layer, Tar().link("l", "t/" * 2100).bytes(), "name longer than 4095 bytes")


@pytest.mark.parametrize("size", [65_000, 2 << 20])
def test_endless_pax_header(layer: Path, size: int) -> None:
    """Within libarchive's own limit, and beyond it."""
    tar = Tar().file("f", pax_headers={"comment": "c" * size})
    refused(layer, tar.bytes(), "headers, more than 65536|[Tt]oo large|exceeds|larger", limits=layers.LIMITS)


def sparse(size: int, pairs: list[tuple[int, int]], body: bytes) -> bytes:
    """A GNU sparse file of pax format 1.0: the map comes before the data."""
    table = f"{len(pairs)}\n".encode() + b"".join(f"{at}\n{length}\n".encode() for at, length in pairs)
    table += bytes(-len(table) % 512)
    records = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "f",
        "GNU.sparse.realsize": str(size),
    }
    return Tar().file("GNUSparseFile.0/f", table + body, pax_headers=records).bytes()


def test_sparse_file(layer: Path) -> None:
    """A terabyte of hole costs nothing."""
    found = unpack_into(layer, sparse(1 << 40, [(4096, 3), (1 << 30, 2)], b"abcde"))
    assert os.stat(layer / "f").st_size == 1 << 40 and found.bytes <= 64 << 10
    with open(layer / "f", "rb") as file:
        file.seek(1 << 30)
        assert file.read(3) == b"de\0"


def test_cve_2025_58183_endless_sparse_map(layer: Path) -> None:
    pairs = [(n * 10, 0) for n in range(200_000)]
    refused(layer, sparse(1 << 30, pairs, b""), "headers, more than 65536")


@pytest.mark.parametrize("pairs", [[(0, 1 << 40)], [(1 << 62, 4)], [(8, 4), (0, 4)], [(0, 3), (1 << 63, 3)]])
def test_sparse_map_that_lies(layer: Path, pairs: list[tuple[int, int]]) -> None:
    """Either it is refused, or no more was written than the blob has."""
    try:
        unpack_into(layer, sparse(100, pairs, b"abcdefgh"))
    except PyrunError:
        pass
    for file in layer.iterdir():
        assert os.stat(file).st_blocks <= 16


def test_zstd_window_bomb(layer: Path) -> None:
    """A frame that asks for a window of 2 GiB."""
    frame = b"\x28\xb5\x2f\xfd" + b"\x00" + bytes([(31 - 10) << 3]) + b"\x01\x00\x00"
    refused(layer, frame, "zstd stream is damaged")


def test_disk_full(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", small], check=True)
    try:
        with pytest.raises(ResourceExhausted, match="entry big: writing the file: no space left"):
            (small / "layer").mkdir()
            unpack_into(small / "layer", Tar().file("big", os.urandom(1 << 20)).bytes())
    finally:
        subprocess.run(["umount", small], check=True)


# ---- streams that are cut, damaged, or go on


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True).stdout


@pytest.mark.parametrize("pack", [gzip.compress, zstd], ids=["gzip", "zstd"])
def test_cut_at_any_byte(layer: Path, pack: Any) -> None:
    blob = pack(Tar().file("f", os.urandom(300)).bytes())
    step = max(1, len(blob) // 25)
    for end in [*range(4, len(blob), step), len(blob) - 1]:
        refused(layer, blob[:end], "cut short|damaged")


def test_tar_cut_in_mid_file(layer: Path) -> None:
    blob = Tar().file("f", b"x" * 2000).bytes()
    for end in (100, 600, 2000):
        refused(layer, blob[:end], "Truncated|Damaged|Unrecognized archive format")


@pytest.mark.parametrize("tail", [b"garbage", bytes(512), b"\x1f\x8b", b"\x1f"])
@pytest.mark.parametrize("pack", [gzip.compress, zstd], ids=["gzip", "zstd"])
def test_trailing_garbage(layer: Path, pack: Any, tail: bytes) -> None:
    refused(layer, pack(Tar().file("f", b"x").bytes()) + tail, "followed by something else|cut short|damaged")


def test_wrong_checksum(layer: Path) -> None:
    blob = bytearray(gzip.compress(Tar().file("f", b"x" * 999).bytes()))
    blob[-6] ^= 1
    refused(layer, bytes(blob), "wrong checksum")


def test_many_members(layer: Path) -> None:
    """Cut at any place of the tar, with empty ones between."""
    tar, empty = Tar().file("f", os.urandom(5000)).bytes(), gzip.compress(b"")
    blob = b"".join(gzip.compress(tar[at : at + 700]) + empty * 50 for at in range(0, len(tar), 700))
    unpack_into(layer, blob)
    skipped = struct.pack("<II", 0x184D2A53, 5) + b"words"
    unpack_into(layer, skipped + b"".join(zstd(tar[at : at + 700]) + skipped for at in range(0, len(tar), 700)))
    assert (layer / "f").stat().st_size == 5000


def test_what_follows_the_end_of_the_tar_is_hashed(layer: Path) -> None:
    """As the peers: it is not looked at, but it belongs to the diffID."""
    tar = Tar().file("f", b"x").bytes()
    assert unpack_into(layer, tar).diff_id != unpack_into(layer, tar + b"more" * 5000).diff_id
    assert unpack_into(layer, b"").entries == 0


@pytest.mark.parametrize("junk", [b"\x7fELF" * 300, b"PK\x03\x04" + b"x" * 1000, b"BZh91AY" * 99, b"\x00" * 511 + b"x"])
def test_no_tar_at_all(layer: Path, junk: bytes) -> None:
    refused(layer, junk, "archive|damaged|[Tt]runcated|[Dd]amaged")


# ---- the words, and the process


def test_name_in_the_error_is_escaped(layer: Path) -> None:
    text = refused(layer, Tar().file("../\x1b[31m\n\udcff").bytes(), "leads out")
    assert "\x1b" not in text and "\\x1b[31m\\x0a\\xff" in text and "\n" not in text


def test_killed_midway(layer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By whoever: it is told, and what was written can be removed."""
    spawn = layer_program._spawn

    def spawn_and_kill(*args: Any) -> int:
        pid = spawn(*args)
        os.kill(pid, 9)
        return pid

    monkeypatch.setattr(layer_program, "_spawn", spawn_and_kill)
    refused(layer, Tar().file("f", b"x").bytes(), "pyrun-layer (unpack|image) was killed by SIGKILL")


def test_errno_words(layer: Path) -> None:
    """A read-only directory: the system's reason is in the message."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", layer], check=True)
    try:
        with pytest.raises(PyrunError, match="entry f: creating the file") as caught:
            unpack_plainly(layer, Tar().file("f").bytes())
        assert str(caught.value).endswith(os.strerror(errno.EROFS).lower())
    finally:
        subprocess.run(["umount", layer], check=True)
