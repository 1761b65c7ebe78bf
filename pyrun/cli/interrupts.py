"""What HUP, INT and TERM do while a command makes something: they wait, and what is half made is undone.

The exit status tells whether it was made. One that comes when it is complete came too late, and is lost.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` costs an enum
import posix

from pyrun.executor import held_signals

HUP, INT, TERM = 1, 2, 15


class Interrupts:
    """`cancel` is readable when a signal waits, from hold() on: for Runtime.create() and its like. Close it."""

    __slots__ = ("_before", "_numbers", "cancel")

    def __init__(self) -> None:
        self._numbers = [n for n in (HUP, INT, TERM) if _signal.getsignal(n) != _signal.SIG_IGN]  # as nohup leaves it
        self._before: set[int] | None = None
        self.cancel = held_signals(self._numbers)

    def hold(self) -> None:
        self._before = _signal.pthread_sigmask(_signal.SIG_BLOCK, self._numbers)

    def forget(self) -> None:
        """Whatever waits is somebody else's to take."""
        if self.cancel >= 0:
            posix.close(self.cancel)
            self.cancel = -1

    def close(self) -> None:
        """Takes what waits away, for an error has told of it or it came too late."""
        if self.cancel >= 0:
            while _signal.sigtimedwait(self._numbers, 0) is not None:
                pass
            self.forget()
        if self._before is not None:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, self._before)
            self._before = None
