"""The signals that a program in the foreground gets through its command: held back, and then noted one by one."""

from __future__ import annotations

import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from typing import Any
else:
    import _signal  # the module `signal` costs 6 ms

SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGWINCH, SIGHUP = 17, 18, 19, 20, 21, 22, 28, 1
# Not KILL and STOP, which nobody can catch; not what a fault of our own raises; 32 and 33 are the C library's.
_OURS = {4, 7, 8, 9, 11, 19, 32, 33}
SIGPIPE = 13
# With a terminal these are about ours, and not the program's: we stop in the background; a lost reader is no signal.
OF_OUR_TERMINAL = frozenset((SIGPIPE, SIGTTIN, SIGTTOU))
CAUGHT = frozenset(range(1, 65)) - _OURS


def heed_children() -> None:
    """Where our caller ignored SIGCHLD, exit statuses would be lost."""
    _signal.signal(SIGCHLD, _signal.SIG_DFL)


class Signals:
    """Holds signals back from its making on; `listen` lets them through to `fd`, one byte each; `close` restores all.

    keep: signals that are left as they are."""

    __slots__ = ("_mask", "_old", "_write", "caught", "fd")

    def __init__(self, keep: frozenset[int] = frozenset()) -> None:
        self.caught = CAUGHT - keep
        self._old: dict[int, Any] = {}
        self.fd = self._write = -1
        self._mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, self.caught)

    def listen(self) -> None:
        self.fd, self._write = posix.pipe2(posix.O_CLOEXEC | posix.O_NONBLOCK)
        _signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in self.caught:
            self._old[number] = _signal.signal(number, _noted)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, self.caught)  # those that our caller blocked, too

    def pending(self) -> bytes:
        """The numbers of the signals that have come since the last call, each once."""
        try:
            return bytes(dict.fromkeys(posix.read(self.fd, 4096)))
        except BlockingIOError:
            return b""

    def close(self) -> None:
        if self.fd >= 0:
            for number, handler in self._old.items():
                _signal.signal(number, _signal.SIG_DFL if handler is None else handler)
            _signal.set_wakeup_fd(-1)
            posix.close(self.fd)
            posix.close(self._write)
            self.fd = -1
        _signal.pthread_sigmask(_signal.SIG_SETMASK, self._mask)


def _noted(number: int, frame: object) -> None:
    """The wakeup pipe has it already."""
