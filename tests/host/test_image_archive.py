"""Archives: OCI layouts and docker's, brought in and written out, and what must not be brought in."""

from __future__ import annotations

import gzip
import io
import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from pyrun.errors import PyrunError
from pyrun.image.archive.files import open_files
from pyrun.image.archive.read import find_images
from pyrun.image.archive.write import export
from pyrun.image.reference import parse_reference
from pyrun.image.store import Image, Images
from tests.support.layers import Tar, snapshot
from tests.support.registry.made import Made, make_image, make_index, small_tar


@pytest.fixture
def images(tmp_path: Path) -> Images:
    return Images(str(tmp_path / "image"))


def bring_in(images: Images, path: Path | str) -> list[Image]:
    with open_files(str(path), images.contents.root) as files:
        return [images.add(f.source, f.names, want=f.want, digests=f.named) for f in find_images(files)]


def docker_archive(path: Path, made: Made, tars: list[bytes], tags: list[str], *, links: bool = False) -> Path:
    """As docker save wrote it before it wrote layouts."""
    out = Tar().file("config.json", made.blobs[made.id])
    names = []
    for number, data in enumerate(tars):
        out.dir(f"l{number}")
        if links and number:
            out.symlink(f"l{number}/layer.tar", "../l0/layer.tar")
        else:
            out.file(f"l{number}/layer.tar", data)
        names.append(f"l{number}/layer.tar")
    out.file("manifest.json", json.dumps([{"Config": "config.json", "RepoTags": tags, "Layers": names}]).encode())
    path.write_bytes(out.bytes())
    return path


def layout(path: Path, made: Made, name: str = "") -> Path:
    notes = {"annotations": {"org.opencontainers.image.ref.name": name}} if name else {}
    index = {"schemaVersion": 2, "manifests": [made.descriptor() | notes]}
    (path / "blobs" / "sha256").mkdir(parents=True)
    (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (path / "index.json").write_text(json.dumps(index))
    for digest, data in made.blobs.items():
        (path / "blobs" / digest.replace(":", "/")).write_bytes(data)
    return path


@pytest.mark.parametrize("packed", [False, True])
def test_docker_archive(images: Images, tmp_path: Path, packed: bool) -> None:
    tars = [small_tar("a"), small_tar("b")]
    made = make_image(tars, {"Cmd": ["sh"]}, docker=True)
    path = docker_archive(tmp_path / "a.tar", made, tars, ["busybox:1", "q.io/b:2"])
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    (image,) = bring_in(images, path)
    assert (image.id, image.tags, image.digests) == (made.id, ("docker.io/library/busybox:1", "q.io/b:2"), ())


def test_docker_archive_with_a_link_for_a_layer(images: Images, tmp_path: Path) -> None:
    tars = [small_tar("a"), small_tar("a")]
    made = make_image(tars)
    (image,) = bring_in(images, docker_archive(tmp_path / "a.tar", made, tars, ["a:1"], links=True))
    assert image.id == made.id


@pytest.mark.parametrize("index", [False, True])
def test_oci_layout(images: Images, tmp_path: Path, index: bool) -> None:
    made = make_image([small_tar("a")], form="zstd")
    top = make_index(("linux/amd64", made)) if index else made
    (image,) = bring_in(images, layout(tmp_path / "layout", top, "q.io/a:1"))
    assert (image.id, image.tags) == (made.id, ("q.io/a:1",))


def test_a_layouts_bare_tag_names_nothing(images: Images, tmp_path: Path) -> None:
    (image,) = bring_in(images, layout(tmp_path / "layout", make_image([small_tar("a")]), "latest"))
    assert (image.tags, image.digests) == ((), ())


def test_export_and_back(images: Images, tmp_path: Path) -> None:
    """The trees are the same, whiteouts and all; the same export again is the same to the byte."""
    lower = (
        Tar().dir("./").dir("d", mode=0o1777).file("d/old").file("gone").file("set", b"x", mode=0o4755, uid=7, gid=8)
    )
    lower.link("again", "set").symlink("to", "/etc").fifo("pipe")
    lower.file("note", b"n", pax_headers={"SCHILY.xattr.user.a": "b"}).dir("more/").symlink("more/dir", "../d")
    upper = Tar().dir("./").file(".wh.gone").dir("d").file("d/.wh..wh..opq").file("d/new").file("é\udcff")
    made = make_image([lower.bytes(), upper.bytes()], {"Cmd": ["sh"], "User": "7"})
    image = images.add(made.source(), [parse_reference("q.io/a:1"), parse_reference("q.io/b:1")])
    first, second = io.BytesIO(), io.BytesIO()
    export(images, [image], first, "export")
    export(images, [image], second, "export")
    assert first.getvalue() == second.getvalue()
    assert images.holders() == frozenset()
    (tmp_path / "a.tar").write_bytes(first.getvalue())
    other = Images(str(tmp_path / "other"))
    (back,) = bring_in(other, tmp_path / "a.tar")
    assert back.tags == ("q.io/a:1", "q.io/b:1")
    assert back.config == image.config
    for left, right in zip(images.lowers(image.id), other.lowers(back.id), strict=True):
        assert without_whiteouts_times(snapshot(Path(left))) == without_whiteouts_times(snapshot(Path(right)))
    third = io.BytesIO()
    export(other, [back], third, "export")
    assert third.getvalue() == first.getvalue()


def test_docker_reads_what_is_exported(images: Images, tmp_path: Path) -> None:
    """By its manifest.json alone, as docker before 25 and podman read it."""
    image = images.add(make_image([small_tar("a")]).source(), [parse_reference("q.io/a:1")])
    with open(tmp_path / "a.tar", "w+b") as file:
        export(images, [image], file, "export")
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "-xf", tmp_path / "a.tar", "-C", tmp_path / "out"], check=True)
    (tmp_path / "out" / "index.json").unlink()
    (back,) = bring_in(Images(str(tmp_path / "other")), tmp_path / "out")
    assert back.tags == ("q.io/a:1",)


# --- what must not be ------------------------------------------------------------------------------------------------


def without_whiteouts_times(tree: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    """They are of the moment at which they were made."""
    return {n: found[:3] if found[0] == stat.S_IFCHR else found for n, found in tree.items()}


def wrong(images: Images, path: Path, said: str) -> None:
    with pytest.raises(PyrunError, match=said):
        bring_in(images, path)
    assert images.list() == []
    assert os.listdir(f"{images.contents.root}/ingest") == []


def test_cve_2023_25153_a_manifest_without_bounds(images: Images, tmp_path: Path) -> None:
    path = layout(tmp_path / "layout", make_image([small_tar("a")]))
    os.truncate(path / "index.json", 1 << 40)
    wrong(images, path, "1099511627776 bytes")


def test_cve_2025_58183_a_header_without_bounds(images: Images, tmp_path: Path) -> None:
    data = Tar().file("manifest.json", b"[]", pax_headers={"comment": "x" * (1 << 20)}).bytes()
    (tmp_path / "a.tar").write_bytes(data)
    wrong(images, tmp_path / "a.tar", "a header of")


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "link"])
def test_zip_slip_nothing_outside_is_read(images: Images, tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_text("{}")
    entry = json.dumps([{"Config": name, "RepoTags": ["a:1"], "Layers": []}]).encode()
    (tmp_path / "a.tar").write_bytes(Tar().symlink("link", "/etc/hostname").file("manifest.json", entry).bytes())
    wrong(images, tmp_path / "a.tar", "is not in the archive")
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "manifest.json").write_bytes(entry)
    (tmp_path / "dir" / "link").symlink_to("/etc/hostname")
    wrong(images, tmp_path / "dir", "no name of a file|symbolic links|is not in")


def test_digest_of_a_layouts_blob(images: Images, tmp_path: Path) -> None:
    made = make_image([small_tar("a")])
    path = layout(tmp_path / "layout", made)
    blob = path / "blobs" / made.layers[0].replace(":", "/")
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    wrong(images, path, "the bytes that came are|gzip")


@pytest.mark.parametrize("data", [b"", b"x" * 2000, b"\x1f\x8bx", Tar().file("a").bytes()])
def test_no_archive(images: Images, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(data)
    wrong(images, tmp_path / "a.tar", "no tar|neither|a.tar: ")


def test_cut_in_the_middle(images: Images, tmp_path: Path) -> None:
    tars = [small_tar("a", "x" * 100_000)]
    path = docker_archive(tmp_path / "a.tar", make_image(tars), tars, ["a:1"])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    wrong(images, path, "no tar|neither|ends in the middle|not in")
