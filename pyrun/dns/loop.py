"""One thread that waits for descriptors and times. Small, because a forwarded query passes through it twice."""

from __future__ import annotations

import heapq
import itertools
import select
import time
from collections.abc import Callable

Callback = Callable[[], None]


class Timer:
    """A call that is still to come, unless cancelled."""

    __slots__ = ("call",)

    def __init__(self, call: Callback) -> None:
        self.call: Callback | None = call

    def cancel(self) -> None:
        self.call = None


class Loop:
    def __init__(self) -> None:
        self._poll = select.epoll()
        self._calls: dict[int, Callback] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._count = itertools.count()
        self.running = True
        self.now = time.monotonic()

    def read(self, fd: int, call: Callback) -> None:
        """Calls when there is something to read, as long as there is."""
        self._poll.register(fd, select.EPOLLIN)
        self._calls[fd] = call

    def write(self, fd: int, call: Callback) -> None:
        """Calls when it can be written, in place of what read() said of it."""
        if fd in self._calls:
            self._poll.modify(fd, select.EPOLLOUT)
        else:
            self._poll.register(fd, select.EPOLLOUT)
        self._calls[fd] = call

    def forget(self, fd: int) -> None:
        """Before it is closed."""
        if self._calls.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def after(self, seconds: float, call: Callback) -> Timer:
        timer = Timer(call)
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._count), timer))
        return timer

    def stop(self) -> None:
        self.running = False

    def run(self) -> None:
        """Until stop(). What a callback raises ends it."""
        while self.running:
            self.turn()

    def turn(self, most_s: float = 60.0) -> None:
        """Waits once, at most that long, and calls what is due."""
        while self._timers and self._timers[0][2].call is None:
            heapq.heappop(self._timers)
        wait = most_s
        if self._timers:
            wait = min(wait, max(0.0, self._timers[0][0] - time.monotonic()))
        found = self._poll.poll(wait)
        self.now = time.monotonic()
        for fd, _ in found:
            if call := self._calls.get(fd):
                call()
        while self._timers and self._timers[0][0] <= self.now:
            timer = heapq.heappop(self._timers)[2]
            if timer.call is not None:
                timer.call()

    def close(self) -> None:
        self._poll.close()
