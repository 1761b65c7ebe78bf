"""A container's lines as they are sent: those that belong together as one, and up to where all of them were sent.

An entry is held until it is whole (entry.py), and the place that may be remembered is before the oldest one that is
held, so that a kill sends it again.
"""

from __future__ import annotations

import time
from collections import deque

from ..entry import Entries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..entry import Open, Rule
    from ..follow import Cursor, Position
    from ..line import Line


class Gathered:
    """rule: None if each line is one."""

    def __init__(self, cursor: Cursor, rule: Rule | None) -> None:
        self.cursor = cursor
        self._entries = Entries(rule)
        # Where each entry begins that is held.
        self._begins: deque[Position] = deque()

    @property
    def safe(self) -> Position:
        """All lines before it have been told by read()."""
        return self._begins[0] if self._begins else self.cursor.safe

    def read(self, burst: int) -> Iterator[Line]:
        """As the cursor's."""
        for line in self.cursor.read(burst):
            begun = self._entries.begun
            whole = list(self._entries.add(line, hit=True))
            if self._entries.begun > begun:
                self._begins.append(self.cursor.begin())
            yield from self._told(whole)
        if self.cursor.at_end:
            yield from self._told(self._entries.older(time.time_ns()))

    def _told(self, whole: Iterable[Open]) -> Iterator[Line]:
        for one in whole:
            self._begins.popleft()
            yield one.line()
