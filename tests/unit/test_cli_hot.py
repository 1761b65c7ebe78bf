"""The file of what a verb imports: it is made, used, and never used when it is not of the sources that are there."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import _cffi_backend  # type: ignore[import-untyped]
import pytest

REPO = Path(__file__).resolve().parents[2]
PACKAGES = Path(_cffi_backend.__file__).parent
SAID = """
import builtins
plain = builtins.compile
def compile(*given, **more):
    print("COMPILED", file=sys.stderr)
    return plain(*given, **more)
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package's Python alone, with sources of a time that has long gone by."""
    ignore = shutil.ignore_patterns("__pycache__", "*.so", "bin")
    made = Path(shutil.copytree(REPO / "pyrun", tmp_path / "pyrun", ignore=ignore))
    (made / "bin").mkdir()
    (made / "bin" / "site-packages").symlink_to(PACKAGES)
    for path in made.rglob("*.py"):
        os.utime(path, (1e9, 1e9))
    return made


def command(package: Path, *argv: str, code: int = 0) -> str:
    """Runs a command line and returns what it said, with the modules that Python's importer had to find."""
    argv = (sys.executable, "-I", "-S", "-X", "importtime", str(package / "__main__.py"), *argv)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def found(said: str) -> set[str]:
    lines = [line.rpartition("|")[2].strip() for line in said.splitlines() if line.startswith("import time:")]
    return {name for name in lines if name.startswith(("pyrun", "__future__"))}


def hot(package: Path, verb: str = "list") -> Path:
    return package / "__pycache__" / f"{verb}.{sys.implementation.cache_tag}.hot"


@pytest.fixture
def warm(package: Path, tmp_path: Path) -> list[str]:
    """A command line whose file has been made."""
    argv = ["--root", str(tmp_path), "list"]
    assert "pyrun.cli.table" in found(command(package, *argv))
    assert hot(package).exists()
    return argv


def test_the_second_time_nothing_is_looked_for(package: Path, warm: list[str]) -> None:
    said = command(package, *warm)
    assert found(said) == set()
    assert "BUNDLE" in said


def test_a_verb_of_the_launcher_s_has_none(package: Path, warm: list[str]) -> None:
    command(package, "--root", warm[1], "delete", "--force", "nope")
    assert [path.name for path in hot(package).parent.glob("*.hot")] == [hot(package).name]


def test_a_command_that_fails_leaves_none(package: Path, tmp_path: Path) -> None:
    command(package, "--root", str(tmp_path / "nope"), "list", code=1)
    assert not hot(package).exists()


def test_an_edited_source_is_seen(package: Path, warm: list[str]) -> None:
    source = package / "cli" / "commands" / "list.py"
    source.write_text(source.read_text().replace('"BUNDLE"', '"bundle"'))
    said = command(package, *warm)
    assert " bundle " in said and "pyrun.cli.table" in found(said)
    said = command(package, *warm)  # and the file was made anew
    assert " bundle " in said and "pyrun.cli.table" not in found(said)


def test_an_edit_that_keeps_the_size_is_seen(package: Path, warm: list[str]) -> None:
    source = package / "cli" / "commands" / "list.py"
    source.write_text(source.read_text().replace('"BUNDLE"', '"ELDNUB"'))
    os.utime(source, (time.time() - 5, time.time() - 5))
    assert "ELDNUB" in command(package, *warm)


def test_a_source_that_is_gone_is_not_run(package: Path, warm: list[str]) -> None:
    (package / "cli" / "commands" / "list.py").unlink()
    assert "internal error" in command(package, *warm, code=1)


@pytest.mark.parametrize("keep", [0, 3, 4, 100, -1])
def test_a_damaged_file_is_made_anew(package: Path, warm: list[str], keep: int) -> None:
    whole = hot(package).read_bytes()
    hot(package).write_bytes(whole[:keep])
    assert "BUNDLE" in command(package, *warm)
    assert len(hot(package).read_bytes()) > len(whole) // 2
    assert found(command(package, *warm)) == set()


def test_of_another_python_it_is_not_read(package: Path, warm: list[str]) -> None:
    whole = hot(package).read_bytes()
    hot(package).write_bytes(b"\0\0\0\0" + whole[4:])
    assert "pyrun.cli.table" in found(command(package, *warm))


@pytest.mark.parametrize("value", [b"F", b")\0", b")\2NN"])
def test_one_of_another_pyrun_s_layout_is_made_anew(package: Path, warm: list[str], value: bytes) -> None:
    hot(package).write_bytes(hot(package).read_bytes()[:4] + value)
    assert "BUNDLE" in command(package, *warm)
    assert found(command(package, *warm)) == set()


def test_where_nothing_can_be_written_it_works_too(package: Path, tmp_path: Path) -> None:
    (package / "__pycache__").write_text("in the way")
    for _ in range(2):
        assert "BUNDLE" in command(package, "--root", str(tmp_path), "list")


def test_a_file_that_can_not_be_written_is_not_left_behind(package: Path, warm: list[str]) -> None:
    """As where the disk is full, or something is in its place."""
    hot(package).unlink()
    limit = (sys.executable, "-I", "-S", "-B", str(package / "__main__.py"), *warm)
    no_files = (resource.RLIMIT_FSIZE, (0, 0))
    done = subprocess.run(limit, capture_output=True, timeout=60, preexec_fn=lambda: resource.setrlimit(*no_files))
    assert done.returncode == 0
    hot(package).mkdir()
    command(package, *warm)
    assert list(hot(package).parent.glob("*.hot*")) == [hot(package)]


def test_nothing_is_compiled_where_it_can_not_be_kept(package: Path, warm: list[str]) -> None:
    """There each command would take as long."""
    hot(package).unlink()
    (package / "cli" / "hot.py").write_text((package / "cli" / "hot.py").read_text() + SAID)
    os.utime(package / "cli" / "hot.py", (1e9, 1e9))
    assert "COMPILED" in command(package, *warm)
    shutil.rmtree(package / "__pycache__")
    (package / "__pycache__").write_text("in the way")
    assert "COMPILED" not in command(package, *warm)


def test_an_option_named_as_a_verb_does_no_harm(package: Path, warm: list[str], tmp_path: Path) -> None:
    (tmp_path / "create").mkdir()
    for _ in range(2):
        assert "BUNDLE" in command(package, "--root", str(tmp_path / "create"), "--log", "/dev/null", "list")
        assert "BUNDLE" in command(package, "--log-format", "text", "--criu", "create", *warm)


def test_a_copy_of_the_package_does_not_run_the_first(package: Path, warm: list[str], tmp_path: Path) -> None:
    copy = shutil.copytree(package, tmp_path / "copy" / "pyrun", symlinks=True)
    for path in copy.rglob("*.py"):
        os.utime(path, (1e9, 1e9))
    source = copy / "cli" / "commands" / "list.py"
    source.write_text(source.read_text().replace('"BUNDLE"', '"bundle"'))
    assert " bundle " in command(copy, *warm)
