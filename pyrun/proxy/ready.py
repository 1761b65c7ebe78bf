"""The data plane's rules as images that another one can be given at once: while they are put together nobody is served.

What was told as a whole is kept as a sealed memfd; what has changed since is little, and is put together when it is
asked for. Where it is much, all is put together anew, while there is time.
"""

from __future__ import annotations

import os

from ..memfd import sealed
from .rules import Change

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .rules import EndpointSet, Frontend, Key

MOST = 2000  # sets and frontends that have changed since


class Ready:
    """whole: the descriptor of an image of all the rules; -1 for none yet."""

    def __init__(self) -> None:
        self.whole = -1
        self._sets: dict[str, EndpointSet | None] = {}  # None: it is gone
        self._frontends: dict[Key, Frontend | None] = {}

    def begin(self, image: bytes) -> None:
        """image: all there is, from here on. PyrunError; then what was ready before is so still."""
        made = sealed("rules", image)
        self.close()
        self.whole = made
        self._sets, self._frontends = {}, {}

    def note(self, change: Change) -> None:
        self._sets |= {one.key: one for one in change.sets_put}
        self._sets |= dict.fromkeys(change.sets_gone)
        self._frontends |= {one.key: one for one in change.frontends_put}
        self._frontends |= dict.fromkeys(change.frontends_gone)

    def since(self) -> Change:
        """What has changed since begin()."""
        sets, frontends = self._sets, self._frontends
        return Change(
            frontends_put=tuple([one for one in frontends.values() if one is not None]),
            frontends_gone=tuple([key for key, one in frontends.items() if one is None]),
            sets_put=tuple([one for one in sets.values() if one is not None]),
            sets_gone=tuple([key for key, one in sets.items() if one is None]),
        )

    @property
    def is_long(self) -> bool:
        """Whether begin() is due again."""
        return len(self._sets) + len(self._frontends) > MOST

    def close(self) -> None:
        if self.whole >= 0:
            os.close(self.whole)
            self.whole = -1
