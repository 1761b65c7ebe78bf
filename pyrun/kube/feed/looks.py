"""What has changed in a directory of YAML and JSON files since the last look, by inode, size and times.

Looked at is NAME.yaml, NAME.yml and NAME.json that begin with neither a dot nor a #; so what editors and downloads
leave beside (.web.yaml.swp, web.yaml~, web.yaml.partial) is not. When to look is the caller's: a file is whole when it
has been closed or moved into place and the directory has been still for STILL_S, or LATEST_S after the first event.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from ... import inotify
from ...errors import PyrunError, reason

ENDINGS = (".yaml", ".yml", ".json")
STILL_S, LATEST_S = 0.03, 0.5  # without an event; after the first one
_LOST = inotify.DELETE_SELF | inotify.MOVE_SELF | inotify.UNMOUNT | inotify.IGNORED


class Looks:
    """path: absolute. lost: it is not followed, as it is not there: look again and again."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._marks: dict[str, tuple[int, int, int, int]] = {}
        self._watch = inotify.Watch()
        self._wd = -1

    @property
    def lost(self) -> bool:
        return self._wd < 0

    def fileno(self) -> int:
        """Readable when something has happened; then stir()."""
        return self._watch.fileno()

    def stir(self) -> None:
        for event in self._watch.read():
            if event.wd == self._wd and event.mask & _LOST:
                self._wd = -1

    def look(self) -> tuple[list[str], Iterator[str]]:
        """(paths that are gone, paths that are new or others), by name; one of these counts as seen once it is taken.
        PyrunError where the directory can't be read: then what was in it counts as it was."""
        try:
            if self._wd < 0:
                self._wd = self._watch.add(self.path, inotify.CHANGES | inotify.ONLYDIR)
            names = sorted(name for name in os.listdir(self.path) if is_ours(name))
        except OSError as error:
            raise PyrunError(f"{self.path}: {reason(error)}") from None
        paths = [os.path.join(self.path, name) for name in names]
        gone = sorted(self._marks.keys() - set(paths))
        for path in gone:
            del self._marks[path]
        return gone, (path for path in paths if self._is_new(path))

    def _is_new(self, path: str) -> bool:
        try:
            at = os.stat(path)
        except OSError:
            return False  # it is just being moved; an event follows
        mark = (at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns)
        if self._marks.get(path) == mark:
            return False
        self._marks[path] = mark
        return True

    def close(self) -> None:
        self._watch.close()


def is_ours(name: str) -> bool:
    """Whether a file of this name is read."""
    return name.endswith(ENDINGS) and name[0] not in ".#"
