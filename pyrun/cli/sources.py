"""Whether the files that a long-lived program has imported from its package are still those that it runs.

Looking at each takes a sixth of the time that an exec's plan does. So on a file system where nobody but this kernel
changes files, it says when something happens beside them (inotify(7)); from then on each is looked at each time.
"""

from __future__ import annotations

import os
import sys

from pyrun.errors import PyrunError
from pyrun.facts import read_text
from pyrun.inotify import CHANGES, MODIFY, Watch

LOCAL = ("btrfs", "ext2", "ext3", "ext4", "f2fs", "tmpfs", "xfs")  # an overlay's layers may be changed behind its back


class Sources:
    """As they are when it is made."""

    def __init__(self) -> None:
        self._package = __file__.rpartition("/cli/")[0]
        self._watch = self._watched(sorted({file.rpartition("/")[0] for file in _source_files()}))
        self._place = _place(self._package)
        self._files = {file: _version(file) for file in _source_files()}

    def are_current(self) -> bool:
        try:
            if self._watch is not None:
                if _place(self._package) == self._place and not self._watch.read():
                    return True
                self._watch.close()
                self._watch = None
            return all(_version(file) == seen for file, seen in self._files.items())
        except OSError:
            return False

    def _watched(self, directories: list[str]) -> Watch | None:
        """None where each file must be looked at each time."""
        if _file_system(self._package) not in LOCAL:
            return None
        try:
            watch = Watch()
            for directory in directories:
                watch.add(directory, CHANGES | MODIFY)
        except PyrunError:  # there are no more to be had
            return None
        return watch


def _source_files() -> list[str]:
    ours = [module for name, module in sys.modules.items() if name.partition(".")[0] == "pyrun"]
    return [file for module in ours if (file := getattr(module, "__file__", None))]


def _version(path: str) -> tuple[int, ...]:
    info = os.stat(path)
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns


def _place(path: str) -> tuple[int, int]:
    """Another where a directory above it was replaced, or a mount covers it, which no watch tells."""
    info = os.stat(path)
    return info.st_dev, info.st_ino


def _file_system(path: str) -> str:
    """The type of the one that path is on; "" where it is not to be found by its device (proc_pid_mountinfo(5))."""
    device = os.stat(path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in read_text("/proc/self/mountinfo", 8 << 20).splitlines():
        if line.split()[2] == number:
            return line.partition(" - ")[2].split()[0]
    return ""
