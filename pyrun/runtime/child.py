"""A child of ours, held by its pidfd, that is waited for by its own number: nobody else's child is ever reaped."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` costs an enum
import posix
import time
from _thread import allocate_lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

P_PIDFD = 3
CLD_EXITED = 1
LONGEST_S = 86_400.0  # poll(2) takes no more than 24 days
ASK_S = 1.0


class Child:
    """pid, and its pidfd, which is closed with it. Threads may wait for the same one."""

    __slots__ = ("_code", "_lock", "_reaped", "pid", "pidfd")

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self._lock = allocate_lock()
        self._reaped = False
        self._code: int | None = None

    def reap(self) -> bool:
        """Takes its status if it has ended. Whether it has."""
        with self._lock:
            if not self._reaped and self.pidfd >= 0:
                try:
                    ended = posix.waitid(P_PIDFD, self.pidfd, posix.WEXITED | posix.WNOHANG)
                except ChildProcessError:  # no child of ours, or another has reaped it
                    self._reaped = bool(_poll([self.pidfd], 0))
                    return self._reaped
                if ended is not None:
                    self._reaped = True
                    self._code = ended.si_status if ended.si_code == CLD_EXITED else 128 + ended.si_status
            return self._reaped

    def wait(self, timeout: float | None = None, others: Callable[[], Sequence[Child]] | None = None) -> int | None:
        """Its exit code, 128 + n where signal n ended it; None where that is not ours to know. TimeoutError after
        timeout seconds. others: children that are reaped, too, as they end; asked anew as there come more."""
        last = None if timeout is None else time.monotonic() + timeout
        most = LONGEST_S if others is None else ASK_S
        while not self.reap():
            left = most if last is None else last - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"process {self.pid} has not ended in {timeout:g} s")
            waiting = [child for child in others() if child is not self and not child.reap()] if others else []
            self._wait([self, *waiting], min(left, most))
        return self._code

    @staticmethod
    def _wait(children: list[Child], left: float) -> None:
        """Until one has ended, or for so many seconds. On descriptors of our own: another thread may close a child
        meanwhile."""
        fds: list[int] = []
        try:
            for child in children:
                with child._lock:
                    if child.pidfd >= 0:
                        fds.append(posix.dup(child.pidfd))
            _poll(fds, left)
        finally:
            for fd in fds:
                posix.close(fd)

    def kill(self, number: int) -> None:
        with self._lock:
            if not self._reaped and self.pidfd >= 0:
                try:
                    _signal.pidfd_send_signal(self.pidfd, number)
                except ProcessLookupError:  # it has just ended
                    return

    def close(self) -> None:
        with self._lock:
            if self.pidfd >= 0:
                posix.close(self.pidfd)
                self.pidfd = -1

    def __del__(self) -> None:
        self.close()


def end_child(pidfd: int) -> None:
    """Kills it and reaps it."""
    _signal.pidfd_send_signal(pidfd, 9)
    posix.waitid(P_PIDFD, pidfd, posix.WEXITED)


def _poll(fds: list[int], seconds: float) -> list[tuple[int, int]]:
    import select  # not for a create

    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return poll.poll(seconds * 1000)
