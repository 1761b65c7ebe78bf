"""Sources notices each change of the files it was made from, by inotify where that tells and by looking where not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAM = """
import sys
import pyrun.facts
from pyrun.cli import sources
if sys.argv[1] == "looks":
    sources.LOCAL = ()
made = sources.Sources()
print("watches" if made._watch else "looks", flush=True)
for _ in sys.stdin:
    print(made.are_current(), flush=True)
"""


def write(package: Path) -> None:
    with open(package / "facts.py", "a") as file:
        file.write("\n")


def replace(package: Path) -> None:
    (package / "new").write_bytes((package / "facts.py").read_bytes())
    os.replace(package / "new", package / "facts.py")


def remove(package: Path) -> None:
    (package / "facts.py").unlink()


def rename_a_directory_above(package: Path) -> None:
    package.parent.rename(package.parent.with_name("old"))


def replace_a_directory_above(package: Path) -> None:
    old = package.parent.with_name("old")
    package.parent.rename(old)
    subprocess.run(["cp", "-r", old, package.parent], check=True)


CHANGES = [write, replace, remove, rename_a_directory_above, replace_a_directory_above]


@pytest.mark.parametrize("how", ["watches", "looks"])
@pytest.mark.parametrize("change", CHANGES)
def test_it_sees_a_change_and_does_not_forget_it(tmp_path: Path, how: str, change: Callable[[Path], None]) -> None:
    import pyrun

    package = tmp_path / "site" / "pyrun"
    (package / "cli").mkdir(parents=True)
    whole = Path(pyrun.__file__).parent
    for name in ("__init__.py", "errors.py", "facts.py", "inotify.py", "cli/__init__.py", "cli/sources.py"):
        (package / name).write_bytes((whole / name).read_bytes())
    program = [sys.executable, "-B", "-c", PROGRAM, how]
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(program, cwd=package.parent, text=True, **pipe) as process:  # type: ignore[call-overload]

        def ask() -> str:
            print(file=process.stdin, flush=True)
            return str(process.stdout.readline().strip())

        assert process.stdout.readline().strip() in (how, "looks")  # which it does where it can't watch
        assert [ask(), ask()] == ["True", "True"]
        (package / "beside").touch()
        assert ask() == "True"
        change(package)
        assert [ask(), ask()] == ["False", "False"]
        process.stdin.close()
