"""`bootstrap install` puts a pyrun where engines find it, working without the tree; `uninstall` takes it all away."""

from __future__ import annotations

import re
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.container.bundle import BundleMaker
from tests.support.container.runner import REPO, Runner

WHEEL_LIMIT_BYTES = 5_000_000


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A prefix with pyrun installed."""
    directory = tmp_path_factory.mktemp("prefix")
    argv = [str(REPO / "bootstrap"), "install", "--prefix", str(directory)]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    yield directory


def test_installed_pyrun_runs_a_container(prefix: Path, tmp_path: Path, bundle: BundleMaker) -> None:
    installed = Runner(tmp_path / "state", [str(prefix / "bin" / "pyrun")])
    assert installed("--version", cwd="/").ok().out.startswith("pyrun version ")
    assert installed.run(bundle(["echo", "hi"]), cwd="/").ok().out == "hi\n"


def test_installed_pyrun_names_its_commit(prefix: Path, tmp_path: Path) -> None:
    """The one of the tree that it was built from."""
    installed = Runner(tmp_path / "state", [str(prefix / "bin" / "pyrun")])("--version", cwd="/").ok().out
    tree = Runner(tmp_path / "state")("--version", cwd="/").ok().out
    assert re.search(r"^commit: [0-9a-f]{40}$", installed, re.MULTILINE)
    assert installed == tree


def test_installed_pyrun_does_not_need_the_tree(prefix: Path) -> None:
    links = [path for path in prefix.rglob("*") if path.is_symlink()]
    assert links
    assert not [link for link in links if REPO in link.resolve().parents]


def test_installed_click_and_jsonschema_are_found(prefix: Path, tmp_path: Path, bundle: BundleMaker) -> None:
    installed = Runner(tmp_path / "state", [str(prefix / "bin" / "pyrun")])
    assert "Usage" in installed("--help", cwd="/").ok().out
    installed("validate", bundle().path, cwd="/").ok()


def test_installed_pyrun_has_what_the_cri_takes(prefix: Path, tmp_path: Path) -> None:
    installed = Runner(tmp_path / "state", [str(prefix / "bin" / "pyrun")])
    done = installed("cri", "status", "--listen", str(tmp_path / "none.sock"), cwd="/")
    assert done.rc == 1
    assert "none.sock: no such file or directory" in done.err
    # As far as the daemon's own words: all that it imports is there.
    (tmp_path / "wrong.toml").write_text("zebra = 1\n")
    done = installed("cri", "--config", str(tmp_path / "wrong.toml"), "--state", str(tmp_path / "s"), cwd="/")
    assert "there is no zebra" in done.err


def test_wheel_is_complete_and_small(prefix: Path) -> None:
    wheels = list(REPO.glob(".cache/wheel/pyrun-*.whl"))
    assert len(wheels) == 1
    with zipfile.ZipFile(wheels[0]) as wheel:
        names = wheel.namelist()
        assert sum(entry.file_size for entry in wheel.infolist()) < WHEEL_LIMIT_BYTES
    for part in (
        "pyrun/bin/pyrun",
        "pyrun/bin/pyrun-init",
        "pyrun/bin/pyrun-pod",
        "pyrun/oci/schema/config.json",
        "pyrun/__main__.py",
    ):
        assert part in names
    assert [name for name in names if name.startswith("pyrun/_native.")]
    assert not [name for name in names if "_native_faults" in name or "init-faults" in name]  # the tests' own
    assert "none-any" not in wheels[0].name


def test_uninstall_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "lib" / "pyrun" / "pyrun" / "bin").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "pyrun").symlink_to("../lib/pyrun/pyrun/bin/pyrun")
    (tmp_path / "bin" / "other").write_text("not ours")
    subprocess.run([REPO / "bootstrap", "uninstall", "--prefix", tmp_path], check=True, stdin=subprocess.DEVNULL)
    assert sorted(path.name for path in tmp_path.rglob("*") if not path.is_dir()) == ["other"]
    assert not (tmp_path / "lib" / "pyrun").exists()
