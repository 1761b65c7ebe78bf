"""One job at a time in a thread of its own, for a loop that goes on meanwhile: for what may wait for seconds."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from .loop import Loop

T = TypeVar("T")


class Aside:
    """All but the job itself is for the loop's thread."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._done = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread: threading.Thread | None = None
        self._then: Callable[[], None] = lambda: None
        self._since = 0.0
        loop.read(self._done, self._take)

    @property
    def busy(self) -> bool:
        return self._thread is not None

    @property
    def seconds(self) -> float:
        """For which it has been busy."""
        return time.monotonic() - self._since

    def run(self, work: Callable[[], T], then: Callable[[T], None]) -> None:
        """then: called by the loop with what work has returned; what work raises, the loop raises. Not while busy."""
        assert not self.busy
        result: list[Any] = [None, None]

        def job() -> None:
            try:
                result[0] = work()
            except BaseException as error:
                result[1] = error
            os.eventfd_write(self._done, 1)

        def finish() -> None:
            if result[1] is not None:
                raise result[1]
            then(result[0])

        self._then, self._since = finish, time.monotonic()
        self._thread = threading.Thread(target=job, name="dns-aside", daemon=True)
        self._thread.start()

    def finish(self, seconds: float) -> bool:
        """Whether it is not busy, or not any more after so many seconds; then what comes after it has been called."""
        if self._thread is not None:
            self._thread.join(seconds)
            if not self._thread.is_alive():
                self._take()
        return not self.busy

    def _take(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._done)
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
            self._then()

    def close(self) -> None:
        """Not while busy."""
        self._loop.forget(self._done)
        os.close(self._done)
