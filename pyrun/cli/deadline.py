"""A loop in a thread, each of whose rounds has a deadline: for what may hang in the kernel where no signal reaches a
thread, such as a file of a FUSE or network file system whose server does not answer, or one with a lease on it.

A round that is late is given up, and its thread with it: that ends when the kernel lets it go, and another thread goes
on. Who watches sleeps on a timer, which a round sets and clears: to wake a thread for each takes longer.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_LIBC = ctypes.CDLL(None, use_errno=True)
_MONOTONIC = 1
_TIMER = struct.Struct("4q")  # itimerspec of timerfd_create(2): interval and value, seconds and nanoseconds
_OFF, _NOW = _TIMER.pack(0, 0, 0, 0), _TIMER.pack(0, 0, 0, 1)


class Lane:
    """A thread that runs the loop. lost: it was given up, and must end its loop with the round that it is in."""

    __slots__ = ("ended", "give_up", "lost", "seconds", "thread", "timer")

    def __init__(self, seconds: float, loop: Callable[[Lane], object]) -> None:
        self.timer: int = _LIBC.timerfd_create(_MONOTONIC, os.O_CLOEXEC | os.O_NONBLOCK)
        if self.timer < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self.seconds = _TIMER.pack(0, 0, int(seconds), int(seconds % 1 * 1e9))
        self.give_up: Callable[[], object] | None = None
        self.ended = self.lost = False
        self.thread = threading.Thread(target=self._run, args=(loop,), daemon=True)
        self.thread.start()

    def begin(self, give_up: Callable[[], object]) -> None:
        """Of a round. give_up: called by who watches, when it is late."""
        self.give_up = give_up
        _LIBC.timerfd_settime(self.timer, 0, self.seconds, None)

    def end(self) -> None:
        """Of a round."""
        _LIBC.timerfd_settime(self.timer, 0, _OFF, None)
        self.give_up = None

    def close(self) -> None:
        """Of one that has ended, or is about to."""
        self.thread.join()
        os.close(self.timer)

    def _run(self, loop: Callable[[Lane], object]) -> None:
        try:
            loop(self)
        finally:
            self.ended = True
            _LIBC.timerfd_settime(self.timer, 0, _NOW, None)


class Watch:
    """seconds: for a round."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lost: list[Lane] = []

    def held(self) -> int:
        """How many threads that were given up hang still."""
        return sum(lane.give_up is not None for lane in self._lost)

    def run(self, loop: Callable[[Lane], object]) -> None:
        """Runs loop in a thread, anew when a round of it is given up, until it returns."""
        while True:
            for lane in [lane for lane in self._lost if lane.ended]:
                self._lost.remove(lane)
                lane.close()
            lane = Lane(self._seconds, loop)
            _wait(lane)
            if lane.ended:
                lane.close()
                return
            lane.lost = True
            self._lost.append(lane)
            give_up = lane.give_up
            if give_up is not None:
                give_up()


def _wait(lane: Lane) -> None:
    """Until it has ended, or a round of it is late."""
    poll = select.poll()
    poll.register(lane.timer, select.POLLIN)
    while not lane.ended:
        poll.poll()
        try:
            os.read(lane.timer, 8)
        except BlockingIOError:  # the round came to its end meanwhile
            continue
        if lane.give_up is not None:
            return
