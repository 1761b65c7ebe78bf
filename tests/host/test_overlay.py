"""Roots out of layers, as the plan makes them for today's kernels and for Debian 12's: where what is in which layer
shows, what is written, whose it is, and that the host sees no mount."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pyrun.errors import PyrunError
from pyrun.facts import Facts, collect_facts
from pyrun.plan.model.overlay import Overlay
from pyrun.runtime.runtime import Runtime
from tests.support.container.bundle import make_config

NOW, BOOKWORM = collect_facts().kernel, (6, 1)
KERNELS = pytest.mark.parametrize("kernel", [NOW, BOOKWORM], ids=["this kernel", "6.1"])
MAPS = [{"containerID": 0, "hostID": 100000, "size": 65536}]
LAYERS = 127


def host(kernel: tuple[int, int]) -> Facts:
    facts = collect_facts()
    facts.kernel = kernel
    return facts


class Layered:
    """A bundle whose root is layers: the busybox root lowest, and as many above it as are asked for."""

    def __init__(self, path: Path, rootfs: Path, count: int = 3, *, owner: int = 0) -> None:
        self.path = path
        (path / "rootfs").mkdir()
        self.upper, self.work = path / "writable/upper", path / "writable/work"
        self.upper.mkdir(parents=True)
        self.work.mkdir()
        os.chown(self.upper, owner, owner)
        self.lower = [path / f"layers/sha256:{number:064x}/diff" for number in range(count - 1, 0, -1)]
        for number, layer in enumerate(self.lower):
            (layer / "in").mkdir(parents=True)
            (layer / "in" / f"layer{number}").write_text(str(number))
            (layer / "in" / "same").write_text(str(number))
        self.lower.append(rootfs)

    def run(self, script: str, facts: Facts, *, overlay: dict[str, Any] | None = None, **config: Any) -> int:
        made = make_config(["sh", "-c", script], **config)
        words = {"upper": str(self.upper), "work": str(self.work), **(overlay or {})}
        layers = Overlay(tuple(map(str, self.lower)), **words)
        runtime = Runtime(str(self.path / "state"), facts, warn=lambda text: pytest.fail(text))
        out = os.open(self.path / "out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            container = runtime.run(
                json.dumps(made).encode(), id="layered", bundle=str(self.path), overlay=layers, stdio=(0, out, out)
            )
        finally:
            os.close(out)
        try:
            assert "overlay" not in Path("/proc/self/mountinfo").read_text(), "the host's mount table has it"
            code = container.wait()
            assert code is not None
            return code
        finally:
            container.delete(force=True)

    @property
    def out(self) -> str:
        return (self.path / "out").read_text()


def userns(**linux: Any) -> dict[str, Any]:
    kinds = [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup", "user")]
    return {"namespaces": kinds, "uidMappings": MAPS, "gidMappings": MAPS, **linux}


@KERNELS
def test_127_layers(tmp_path: Path, busybox_rootfs: Path, kernel: tuple[int, int]) -> None:
    root = Layered(tmp_path, busybox_rootfs, LAYERS)
    script = "ls /in | wc -l; cat /in/same; echo; echo new >/in/new; rm /in/layer5; ls -ln /in/new"
    assert root.run(script, host(kernel)) == 0, root.out
    lines = root.out.splitlines()
    assert lines[:2] == [str(LAYERS), "0"], "126 layers' own files and the one that all have, the topmost's"
    assert (root.upper / "in/new").read_text() == "new\n"
    assert os.stat(root.upper / "in/layer5").st_rdev == 0 and (root.lower[5] / "in/layer5").exists(), "a whiteout"


@KERNELS
def test_owners_in_a_user_namespace_are_the_layers(
    tmp_path: Path, busybox_rootfs: Path, kernel: tuple[int, int]
) -> None:
    root = Layered(tmp_path, busybox_rootfs, LAYERS, owner=100000)
    os.chown(root.lower[0] / "in/same", 7, 8)
    (root.lower[0] / "in/same").chmod(0o666)
    script = "stat -c %u:%g / /bin /in/same; echo >>/in/same; stat -c %u:%g /in/same; touch /mine; stat -c %u:%g /mine"
    assert root.run(script, host(kernel), overlay={"idmap": True}, linux=userns()) == 0, root.out
    assert root.out.split() == ["0:0", "0:0", "7:8", "7:8", "0:0"]
    written = os.stat(root.upper / "mine")
    assert (written.st_uid, written.st_gid) == (100000, 100000)
    assert os.stat(root.lower[0] / "in/same").st_uid == 7, "the layer itself is what it was"


@KERNELS
@pytest.mark.parametrize("mapped", [False, True], ids=["", "user namespace"])
def test_a_readonly_root_has_writable_volumes(
    tmp_path: Path, busybox_rootfs: Path, kernel: tuple[int, int], mapped: bool
) -> None:
    root = Layered(tmp_path, busybox_rootfs, owner=100000 if mapped else 0)
    (root.lower[0] / "data").mkdir()
    (root.lower[0] / "data/of-the-image").write_text("x")
    (root.lower[0] / "out").symlink_to("/../../../../data")
    script = "touch /no; touch /in/no; touch /data/yes /fresh/deep/yes; ls /data; stat -c %a /fresh/deep"
    volumes = {"volumes": ("/data", "/fresh/deep", "/out"), "idmap": mapped}
    config: dict[str, Any] = {"linux": userns()} if mapped else {}
    assert root.run(script, host(kernel), overlay=volumes, root={"path": "rootfs", "readonly": True}, **config) == 0
    assert root.out.splitlines() == [
        "touch: /no: Read-only file system",
        "touch: /in/no: Read-only file system",
        "of-the-image",
        "yes",
        "755",
    ]


@KERNELS
def test_cve_2022_23648_no_volume_leads_out(tmp_path: Path, busybox_rootfs: Path, kernel: tuple[int, int]) -> None:
    """CVE-2022-23648: the image says where its volumes are, also through symlinks of its own."""
    root = Layered(tmp_path, busybox_rootfs)
    secret = tmp_path / "secret"
    secret.mkdir()
    (root.lower[0] / "link").symlink_to(tmp_path)
    paths = (f"/../../../../..{tmp_path}/secret", "/link/secret", "/link/new", "../../relative")
    assert root.run("true", host(kernel), overlay={"volumes": paths}) == 0, root.out
    assert not (tmp_path / "new").exists() and not (tmp_path.parent / "relative").exists()
    assert (root.upper / "relative").is_dir() and (root.upper / str(tmp_path).strip("/") / "new").is_dir()


def test_a_layer_that_is_gone_leaves_nothing(tmp_path: Path, busybox_rootfs: Path) -> None:
    root = Layered(tmp_path, busybox_rootfs)
    root.lower[1] = tmp_path / "gone"
    with pytest.raises(PyrunError, match="ENOENT") as caught:
        root.run("true", host(NOW))
    assert "gone" in str(caught.value) and not list((tmp_path / "state").iterdir())


@pytest.mark.parametrize("kernel", [NOW, BOOKWORM], ids=["this kernel", "6.1"])
def test_nothing_of_the_host_is_open_in_it(tmp_path: Path, busybox_rootfs: Path, kernel: tuple[int, int]) -> None:
    root = Layered(tmp_path, busybox_rootfs, 5)
    script = (
        "cd /proc/self/fd; echo *; grep -c / /proc/self/mountinfo; grep layers /proc/self/mounts | head -1 | cut -c1-7"
    )
    assert root.run(script, host(kernel)) == 0
    assert root.out.splitlines()[0].split() == ["0", "1", "2", "3"], "3 is echo's own"


@KERNELS
def test_in_a_pid_namespace_of_others_it_is_made_by_stage_1(
    tmp_path: Path, busybox_rootfs: Path, kernel: tuple[int, int]
) -> None:
    """Who is in there already sees the init, and must not see the layers' directories through it."""
    holder = subprocess.Popen(["unshare", "--pid", "--fork", "sh", "-c", "echo; sleep 1000"], stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline()
    child = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().strip()
    kinds = [{"type": kind} for kind in ("network", "ipc", "uts", "mount", "cgroup")]
    try:
        root = Layered(tmp_path, busybox_rootfs, LAYERS)
        joined = {"namespaces": [*kinds, {"type": "pid", "path": f"/proc/{child}/ns/pid"}]}
        assert root.run("ls /in | wc -l; touch /in/new; ls /null; ls -l /proc/self/fd", host(kernel), linux=joined) == 0
        assert root.out.split()[0] == str(LAYERS) and "layers" not in root.out and (root.upper / "in/new").exists()
        assert "ls: /null: No such file" in root.out
    finally:
        os.kill(int(child), signal.SIGKILL)
        holder.wait(60)
        holder.stdout.close()
