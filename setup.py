"""Builds the native parts in place before the wheel is packed, and marks the wheel as one for this platform.

Everything else is declared in pyproject.toml. The natives are made by cffi_build/build.py and not by an Extension,
because two of them (the launcher and pyrun-init) are programs.
"""

import subprocess
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py


class BuildNativesFirst(build_py):
    """build_py that makes the C modules and programs before the package's files are collected."""

    def run(self) -> None:
        subprocess.run([sys.executable, Path(__file__).parent / "cffi_build" / "build.py"], check=True)
        # The list of data files was made before they existed.
        self.__dict__.pop("data_files", None)
        super().run()
        self.note_commit()

    def note_commit(self) -> None:
        """Puts the commit that is checked out into the file `commit` of the package that is built."""
        sys.path.insert(0, str(Path(__file__).parent))
        from pyrun.cli.version import UNKNOWN, commit

        if commit() != UNKNOWN:
            Path(self.build_lib, "pyrun", "commit").write_text(commit() + "\n")


class PlatformDistribution(Distribution):
    """A wheel with machine code in it is not `any`."""

    def has_ext_modules(self) -> bool:
        return True


setup(cmdclass={"build_py": BuildNativesFirst}, distclass=PlatformDistribution)
