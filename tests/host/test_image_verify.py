"""Images at rest: what a disk or a hand has changed is found, named, given to no new container, and brought again."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyrun.errors import FailedPrecondition
from pyrun.image import verify
from pyrun.image.layer_program import BadEntry
from pyrun.image.layers import EROFS, content_digest
from pyrun.image.reference import parse_reference
from pyrun.image.store import Image, Images
from tests.support.cri.node import BUSYBOX, a_node
from tests.support.layers import Tar, needs_images, snapshot
from tests.support.registry.made import Made, make_image, make_index, small_tar

NAME = "q.io/a:1"
TOP = (
    Tar()
    .dir("d", mode=0o750)
    .file("d/f", b"hello\n" * 1000)
    .link("d/again", "d/f")
    .symlink("d/l", "f")
    .file("d/.wh.gone")
    .dir("e")
    .file("e/.wh..wh..opq")
    .fifo("e/p")
    .bytes()
)
MADE = make_image([small_tar("base"), TOP])


@pytest.fixture
def images(tmp_path: Path) -> Iterator[Images]:
    found = Images(str(tmp_path / "image"))
    yield found
    found.close()


def add(images: Images, made: Made = MADE, name: str = NAME) -> Image:
    return images.add(made.source(), [parse_reference(name)])


def layer(images: Images, number: int = 1) -> Path:
    return Path(images.contents.root, "layers", MADE.diff_ids[number].removeprefix("sha256:"))


def seen(images: Images) -> dict[str, object]:
    """The layer's tree, without the times of its top and of whiteouts, which no tar has."""
    found = snapshot(layer(images))
    return {name: (*one[:3], *one[4:]) if name in (".", "d/gone") else one for name, one in found.items()}


def states(images: Images, *ids: str) -> list[dict[str, str]]:
    found = verify.verify(images, ids or [image.id for image in images.list()])
    return [{part.digest: part.state for part in image.parts} for image in found]


def test_what_came_is_ok(images: Images) -> None:
    """Also when it is read often, and when the top of it has got another time of change."""
    add(images)
    before = seen(images)
    os.utime(layer(images), ns=(1, 1))
    for _ in range(2):
        assert states(images) == [{MADE.id: "ok", MADE.top: "ok", **dict.fromkeys(MADE.diff_ids, "ok")}]
    assert seen(images) == before
    assert os.listdir(f"{images.contents.root}/ingest") == []
    assert verify.check_database(images) == []


def flip(path: Path, at: int = 0) -> None:
    """One bit of a file, and nothing else of it."""
    st = path.stat()
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))


def copied(path: Path) -> None:
    """A file of two names becomes two files."""
    other = path.with_name("other")
    shutil.copy2(path, other)
    os.rename(other, path)


def relinked(path: Path) -> None:
    st = path.lstat()
    path.unlink()
    path.symlink_to("elsewhere")
    os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns), follow_symlinks=False)


def emptied(path: Path) -> None:
    """A FIFO becomes a file."""
    path.unlink()
    path.touch()


def quietly(directory: Path, change: Callable[[], object]) -> None:
    """The directory's own time stays."""
    st = directory.stat()
    change()
    os.utime(directory, ns=(st.st_atime_ns, st.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], object]] = {
    "a bit": lambda top: flip(top / "d/f", 3000),
    "cut": lambda top: os.truncate(top / "d/f", 5999),
    "a mode": lambda top: (top / "d/f").chmod(0o4755),
    "an owner": lambda top: os.chown(top / "d", 7, 0),
    "a time": lambda top: os.utime(top / "d/f", ns=(0, 0)),
    "an attribute": lambda top: os.removexattr(top / "e", "trusted.overlay.opaque"),
    "one more attribute": lambda top: os.setxattr(top / "d/f", "security.capability", b"\1\0\0\2" + bytes(16)),
    "a link": lambda top: quietly(top / "d", lambda: relinked(top / "d/l")),
    "a name of two": lambda top: quietly(top / "d", lambda: copied(top / "d/again")),
    "one more entry": lambda top: quietly(top / "d", lambda: (top / "d/new").touch()),
    "one entry less": lambda top: quietly(top / "d", lambda: (top / "d/gone").unlink()),
    "another kind": lambda top: quietly(top / "e", lambda: emptied(top / "e/p")),
    "the top's mode": lambda top: top.chmod(0o777),
    "a mount": lambda top: subprocess.run(["mount", "-t", "tmpfs", "none", top / "e"], check=True),
    "all of it": shutil.rmtree,
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_is_found_and_mended_by_a_pull(images: Images, what: str) -> None:
    image = add(images)
    was = seen(images)
    CHANGES[what](layer(images))
    try:
        wanted = {MADE.diff_ids[0]: "ok", MADE.diff_ids[1]: "damaged"}
        assert states(images) == [{MADE.id: "ok", MADE.top: "ok", **wanted}]
    finally:
        subprocess.run(["umount", layer(images) / "e"], check=False, stderr=subprocess.DEVNULL)
    assert MADE.diff_ids[1] in images.find(NAME).damaged
    with pytest.raises(FailedPrecondition, match="pull it again"):
        images.hold(image.id, "c1")
    assert images.holders() == frozenset()
    add(images)
    assert seen(images) == was and os.listdir(f"{images.contents.root}/ingest") == []
    assert not images.find(NAME).damaged and "damaged" not in states(images)[0].values()
    assert images.hold(image.id, "c1")


def test_what_runs_on_it_keeps_its_root(images: Images) -> None:
    image = add(images)
    images.hold(image.id, "c1")
    flip(layer(images) / "d/f")
    assert states(images)[0][MADE.diff_ids[1]] == "damaged"
    with pytest.raises(FailedPrecondition, match=r"c1 has it"):
        add(images)
    assert (layer(images) / "d/f").exists()
    assert images.hold(image.id, "c1")  # the same once more, as after a restart
    images.release("c1")
    add(images)
    assert states(images)[0][MADE.diff_ids[1]] == "ok"


def test_what_is_right_again_is_no_longer_marked(images: Images) -> None:
    add(images)
    flip(layer(images) / "d/f")
    assert "damaged" in states(images)[0].values()
    flip(layer(images) / "d/f")
    assert "damaged" not in states(images)[0].values() and not images.find(NAME).damaged


def test_a_layer_that_comes_anew_while_it_is_looked_at(images: Images) -> None:
    """What is marked is what is there, and not what was."""
    image = add(images)
    flip(layer(images, 0) / "base")
    assert "damaged" in states(images)[0].values()
    left = [add]

    def pull() -> bool:
        while left:
            left.pop()(images)
        return False

    (found,) = verify.verify(images, [image.id], cancel=pull)
    assert found.having(verify.DAMAGED) == () and not images.find(NAME).damaged


def test_an_image_that_is_removed_while_others_are_looked_at(images: Images) -> None:
    """As garbage collection does: it is no fault, and not the end of the others."""
    first, gone = add(images), add(images, make_image([small_tar("other")]), "q.io/b:1")
    last = add(images, make_image([small_tar("last")]), "q.io/c:1")

    def remove() -> bool:
        images.remove(gone.id)
        return False

    found = verify.verify(images, [first.id, gone.id, last.id], cancel=remove)
    assert [(one.id, one.having(verify.DAMAGED)) for one in found] == [(first.id, ()), (last.id, ())]


def test_each_image_that_has_the_layer_is_named(images: Images) -> None:
    add(images)
    other = make_image([small_tar("base"), small_tar("other")])
    add(images, make_index(("linux/amd64", other)), "q.io/b:1")
    flip(layer(images, 0) / "base")
    found = states(images, MADE.id, other.id)
    assert [one[MADE.diff_ids[0]] for one in found] == ["damaged", "damaged"]
    assert found[1][other.diff_ids[1]] == "ok"


@pytest.mark.parametrize("column", ["config", "manifest"])
def test_documents(images: Images, column: str) -> None:
    add(images)
    with images.contents.database.transaction() as db:
        db.execute(f"UPDATE images SET {column} = CAST(replace({column}, 'linux', 'linuX') || ' ' AS BLOB)")
    digest = {"config": MADE.id, "manifest": MADE.top}[column]
    assert [digest for digest, state in states(images)[0].items() if state == "damaged"] == [digest]
    add(images)
    assert "damaged" not in states(images)[0].values()


def test_one_that_an_older_version_brought_is_not_called_right(images: Images) -> None:
    add(images)
    with images.contents.database.transaction() as db:
        db.execute("UPDATE layers SET content = NULL")
        db.execute("UPDATE images SET manifest_digest = NULL")
    assert states(images) == [{MADE.id: "ok", MADE.top: "unknown", **dict.fromkeys(MADE.diff_ids, "unknown")}]


def test_directories_that_are_only_implied_are_looked_at_as_well(images: Images) -> None:
    made = make_image([Tar().dir("tmp", mode=0o1777).bytes(), small_tar("tmp/a")])
    image = add(images, made)
    top = images.lowers(image.id)[0]
    assert len(states(images)[0]) == 5
    os.chmod(f"{top}/tmp", 0o755)
    assert list(states(images)[0].values()) == ["ok", "ok", "ok", "ok", "damaged"]
    add(images, made)
    assert list(states(images)[0].values()) == ["ok"] * 5
    assert os.stat(f"{images.lowers(image.id)[0]}/tmp").st_mode & 0o7777 == 0o1777


def test_the_same_layer_has_the_same_digest_everywhere(images: Images, tmp_path: Path) -> None:
    add(images)
    other = Images(str(tmp_path / "other"))
    add(other)
    query = "SELECT content FROM layers ORDER BY diff_id"
    assert other.contents.database.words(query) == images.contents.database.words(query)
    other.close()


def test_a_tree_that_is_deep(images: Images) -> None:
    """Deeper than the process may have descriptors."""
    made = make_image([Tar().file("/".join(["d"] * 300), b"x").bytes()])
    add(images, made)
    assert "damaged" not in states(images)[0].values()


@needs_images
def test_an_erofs_image(tmp_path: Path) -> None:
    """Also while it is mounted."""
    images = Images(str(tmp_path / "image"), layers=EROFS)
    try:
        image = add(images)
        images.hold(image.id, "c1")
        assert set(states(images)[0].values()) == {"ok"}
        images.release("c1")
        images.contents.unmount_idle()
        path = layer(images) / "image"
        path.chmod(0o600)
        flip(path, path.stat().st_size - 1)
        assert states(images)[0][MADE.diff_ids[1]] == "damaged"
        add(images)
        assert set(states(images)[0].values()) == {"ok"}
    finally:
        images.close()


def test_the_command(images: Images) -> None:
    add(images)

    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pyrun", "image", "verify", "--root", str(Path(images.contents.root).parent)]
        return subprocess.run([*command, *argv], capture_output=True, text=True, timeout=60, check=False)

    done = run()
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{NAME}: ok, 2 layers\n", "")
    flip(layer(images) / "d/f")
    done = run(NAME)
    assert done.returncode == 1
    why = "damaged: what is there is not what was unpacked"
    assert done.stdout == f"{NAME}: layer {MADE.diff_ids[1]}: {why}\n"
    assert f"damaged: {NAME}" in done.stderr and f"pyrun image pull {NAME}" in done.stderr
    done = run("--format", "json")
    assert done.returncode == 1
    (told,) = json.loads(done.stdout)
    assert (told["id"], told["name"]) == (MADE.id, NAME)
    assert [part["digest"] for part in told["parts"] if part["state"] != "ok"] == [MADE.diff_ids[1]]
    assert run("nobody/has:1").returncode == 1


def test_a_database_that_is_damaged(images: Images) -> None:
    add(images)
    images.contents.database.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    path = Path(images.contents.root, "meta.db")
    with sqlite3.connect(path) as db:
        page = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'image_layers_by_layer'").fetchone()[0]
        size = db.execute("PRAGMA page_size").fetchone()[0]
    db.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * size + size - 40)
        file.write(b"\xff" * 40)
    again = Images(images.contents.root)
    assert verify.check_database(again)
    again.close()


def test_a_kubelet_is_told_to_pull(tmp_path: Path, busybox_rootfs: Path) -> None:
    with a_node(tmp_path, busybox_rootfs) as node:
        node.start()
        pod = node.run_pod()
        images = Images(str(node.root / "image"))
        (lower,) = images.lowers(images.find(BUSYBOX).id)
        with open(f"{lower}/etc/passwd", "ab") as file:
            file.write(b"x:x:0:0::/:/bin/sh\n")
        verify.verify(images, [images.find(BUSYBOX).id])
        images.close()
        assert not node.call("ImageStatus", image={"image": BUSYBOX}).HasField("image")
        request = {
            "pod_sandbox_id": pod,
            "config": node.container_config("c", "true"),
            "sandbox_config": node.pod_config(),
        }
        with pytest.raises(FailedPrecondition, match="damaged"):
            node.call("CreateContainer", **request)
        assert not node.call("ListContainers").containers
        node.call("RemovePodSandbox", pod_sandbox_id=pod)


def test_what_can_not_be_read_is_named(images: Images) -> None:
    """A path longer than any that a layer may have."""
    add(images)
    fd = os.open(layer(images), os.O_RDONLY)
    here = fd
    for _ in range(2100):
        os.mkdir("dd", dir_fd=here)
        deeper = os.open("dd", os.O_RDONLY, dir_fd=here)
        if here != fd:
            os.close(here)
        here = deeper
    os.close(here)
    (found,) = verify.verify(images, [MADE.id])
    (part,) = found.having(verify.DAMAGED)
    assert "entry dd/dd" in part.why and part.digest == MADE.diff_ids[1]
    os.close(fd)
    add(images)
    assert not Path(layer(images), "dd").exists() and os.listdir(f"{images.contents.root}/ingest") == []


def test_a_layer_whose_top_can_not_be_read_is_a_fault_of_it(images: Images) -> None:
    """As one that a disk does not give back: it is the layer that is damaged, and not the end of the look at others."""
    process = subprocess.Popen(["sleep", "1000"])
    gone = os.open(f"/proc/{process.pid}/task", os.O_RDONLY | os.O_DIRECTORY)
    process.kill()
    process.wait()
    try:
        with pytest.raises(BadEntry, match=r"entry \.: opening it: no such process"):
            content_digest(gone)
    finally:
        os.close(gone)


def test_a_layer_that_is_no_directory_is_no_crash(images: Images) -> None:
    add(images)
    shutil.rmtree(layer(images))
    layer(images).symlink_to("/")
    assert states(images)[0][MADE.diff_ids[1]] == "damaged"
    add(images)
    assert layer(images).is_dir() and not layer(images).is_symlink()
