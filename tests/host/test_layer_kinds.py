"""The two writers of pyrun-layer agree on what a layer becomes and on which layers are refused, whatever is in them."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import tarfile
import tempfile
from pathlib import Path

from hypothesis import example
from hypothesis import strategies as st

from pyrun.errors import PyrunError
from pyrun.image import erofs
from tests.support.layers import Tar, needs_images, snapshot, unpack_plainly
from tests.support.properties import given

pytestmark = needs_images

COMPONENTS = ["a", "b", "ln", "-", "!", "..", ".wh.a", ".wh.b", ".wh..wh..opq", "n" * 255, "\udcff"]
PATHS = st.lists(st.sampled_from(COMPONENTS), min_size=1, max_size=4).map("/".join)
KINDS = [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
ENTRIES = st.tuples(
    PATHS,
    st.sampled_from(KINDS),
    PATHS | st.sampled_from(["/", "..", ".", "/a", "a/b", "ln"]),
    st.sampled_from([0o755, 0o4711, 0o1777, 0]),
    st.integers(0, 9000),
)
Tree = dict[str, tuple[object, ...]]


def layer_of(entries: list[tuple[str, bytes, str, int, int]]) -> bytes:
    tar = Tar()
    for path, kind, link, mode, size in entries:
        more = {"linkname": link} if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else {}
        data = os.urandom(size) if kind == tarfile.REGTYPE else b""
        tar.add(path, kind, data, mode=mode, uid=size, gid=mode, **more)
    return tar.bytes()


def outcome(top: Path, blob: bytes, kind: str) -> tuple[str, Tree | None]:
    """(why it was refused, what it became)."""
    layer = top / kind
    layer.mkdir()
    try:
        found = unpack_plainly(layer, blob, kind=kind)
    except PyrunError as error:
        return re.sub(r": \S*$", "", str(error)), None
    root = layer
    if kind == "erofs":
        erofs.mount(str(layer))
        root = layer / erofs.ROOT
    implied = {os.fsdecode(name) for name in found.implied}
    try:
        tree = snapshot(root)
    finally:
        if kind == "erofs":
            subprocess.run(["umount", "-l", root], check=True)
    # Whiteouts and what only had to be are as old as the layer; the layer's own directory, too, if it has no entry.
    now = implied | {"."} | {name for name, told in tree.items() if stat.S_ISCHR(int(str(told[0])))}
    return "", {name: told[:3] + told[4:] if name in now else told for name, told in tree.items()}


@given(st.lists(ENTRIES, max_size=12))
@example([("a", b"0", "", 0o755, 0), ("b", b"1", "a/b", 0o755, 0)])  # each way in which a link's target isn't there
@example([("b", b"1", "a/b", 0o755, 0)])
@example([("a", b"2", "a", 0o755, 0), ("b", b"1", "a/b", 0o755, 0)])
@example([("b", b"1", "n" * 300, 0o755, 0)])
@example([("b", b"1", f"{'n' * 300}/a", 0o755, 0)])
def test_both_kinds_are_the_same(entries: list[tuple[str, bytes, str, int, int]]) -> None:
    top = Path(tempfile.mkdtemp())
    try:
        blob = layer_of(entries)
        one, other = (outcome(top, blob, kind) for kind in ("dir", "erofs"))
        assert one == other
    finally:
        shutil.rmtree(top)


def test_directories_of_every_size(tmp_path: Path) -> None:
    """Entries that fill a block to its last byte, one byte more and one less; many blocks; long links; attributes that
    push what follows an inode out of its block."""
    tar = Tar()
    for n in range(300):
        tar.dir(f"d{n}").file(f"d{n}/{'x' * (n % 255 + 1)}", b"1")
        for m in range(n % 40):
            tar.file(f"d{n}/{m:03}{'y' * (60 + n % 50)}", pax_headers={"SCHILY.xattr.user.a": "v" * (n * 13 % 3900)})
        tar.symlink(f"l{n}", "t" * (n * 13 + 1))
    for n in range(2000):
        tar.link(f"many/{'z' * (n % 200)}{n}", "d1/x" + "x")
    one, other = (outcome(tmp_path, tar.bytes(), kind) for kind in ("dir", "erofs"))
    assert one[0] == "" and len(one[1] or ()) > 8000 and one == other
