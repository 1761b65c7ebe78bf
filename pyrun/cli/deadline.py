"""Calls with a deadline, for what may hang in the kernel where no signal reaches a thread: a file of a FUSE or network
file system whose server does not answer, or one that somebody holds a lease on.

One thread carries them out, one after another. A call that is late is given up, and its thread with it: that ends when
the kernel lets it go, and until then a few may be so held. With as many as that no call is begun.
"""

from __future__ import annotations

import threading
from queue import SimpleQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MOST_HELD = 4
DONE, LATE, NOT_BEGUN = range(3)


class _Call:
    __slots__ = ("ended", "work")

    def __init__(self, work: Callable[[], object]) -> None:
        self.work = work
        self.ended = threading.Lock()
        self.ended.acquire()


class Caller:
    """For one thread to call from."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[_Call | None] | None = None  # of the thread that is at hand
        self._held: list[_Call] = []

    def call(self, work: Callable[[], object], seconds: float) -> int:
        """Whether work() has come to its end in time: DONE, LATE or NOT_BEGUN. It must not raise."""
        self._held = [call for call in self._held if call.ended.locked()]
        if len(self._held) >= MOST_HELD:
            return NOT_BEGUN
        if self._calls is None:
            self._calls = SimpleQueue()
            threading.Thread(target=_carry_out, args=(self._calls,), daemon=True).start()
        call = _Call(work)
        self._calls.put(call)
        if call.ended.acquire(timeout=seconds):
            return DONE
        self._calls.put(None)
        self._calls = None
        self._held.append(call)
        return LATE


def _carry_out(calls: SimpleQueue[_Call | None]) -> None:
    while call := calls.get():
        try:
            call.work()
        finally:
            call.ended.release()
