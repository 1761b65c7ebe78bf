"""Directories that are watched for what comes and goes in them. inotify tells when to look; nothing relies upon it."""

from __future__ import annotations

import select
import time

from ..errors import PyrunError
from ..inotify import Watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# A busy writer wakes us at each write: what comes within this time is looked at in one go.
SHORTLY = 0.05


class Watched:
    """mask: of inotify, which events wake."""

    def __init__(self, mask: int) -> None:
        self._mask = mask
        self._watch = Watch()
        self._there: set[str] = set()

    def set(self, directories: Iterable[str]) -> None:
        """These are watched from now on. A removed one's watch goes with it."""
        wanted = set(directories)
        self._there &= wanted
        for directory in wanted - self._there:
            try:
                self._watch.add(directory, self._mask)
            except PyrunError:
                continue  # it is gone, or there are no more watches: who waits looks now and then anyway
            self._there.add(directory)

    def wait(self, seconds: float) -> bool:
        """Until something may have happened, which True says, or for this long."""
        if not select.select([self._watch.fileno()], [], [], seconds)[0]:
            return False
        time.sleep(SHORTLY)
        while self._watch.read():
            pass
        return True

    def close(self) -> None:
        self._watch.close()
