"""Waits for the program of run or exec: hands signals on to it, reaps, relays its terminal, learns how it ended.

The C module `_signal` writes each signal's number to a pipe that the loop polls. The process is waited for by its
pidfd, so that a caller's own SIGCHLD habits don't matter.
"""

from __future__ import annotations

import posix
import select

from pyrun.cli.signals import SIGCHLD, SIGCONT, SIGHUP, SIGSTOP, SIGTSTP, SIGWINCH, Signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable

    from pyrun.cli.console import Terminal
else:
    import _signal

WNOHANG = 1


def exit_code(status: int) -> int:
    """A wait status as a shell has it: the program's own, or 128+n for signal n."""
    code = posix.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


class Foreground:
    """Waits for the process pid, whose pidfd is open. terminal: its terminal's relay, or None.

    Listeners are descriptors that somebody else reads, each with what to call when there is something; a call that
    returns False ends it.
    """

    __slots__ = ("_listeners", "_pid", "_pidfd", "_signals", "_status", "_terminal")

    def __init__(self, pid: int, pidfd: int, signals: Signals, terminal: Terminal | None = None) -> None:
        self._pid = pid
        self._pidfd = pidfd
        self._signals = signals
        self._terminal = terminal
        self._status: int | None = None
        self._listeners: dict[int, Callable[[], bool]] = {}

    def add_listener(self, fd: int, ready: Callable[[], bool]) -> None:
        self._listeners[fd] = ready

    def wait(self) -> int:
        """The exit code of the process. The signals must be listened to."""
        while self._status is None:
            self._turn()
        if self._terminal is not None:
            self._flush(self._terminal)
        return exit_code(self._status)

    def _turn(self) -> None:
        terminal = self._terminal
        events = _poll(
            {
                self._signals.fd: select.POLLIN,
                self._pidfd: select.POLLIN,
                **dict.fromkeys(self._listeners, select.POLLIN),
                **(terminal.wants() if terminal else {}),
            },
            terminal.patience() if terminal else None,
        )
        if terminal is not None:
            terminal.relay(events)
        for fd in [fd for fd in self._listeners if fd in events]:
            if not self._listeners[fd]():
                del self._listeners[fd]
        if self._signals.fd in events:
            for number in self._signals.pending():
                self._take(number)
        if self._pidfd in events:
            self._reap()

    def _take(self, number: int) -> None:
        """One signal: for us, for the terminal, or for the program."""
        terminal = self._terminal
        if number == SIGCHLD:
            self._reap()
        elif number == SIGWINCH and terminal is not None:
            terminal.resize()
        elif number == SIGTSTP and terminal is not None:
            self._stop(terminal)
        else:
            if terminal is not None and number == SIGCONT:
                terminal.begin()
            elif terminal is not None and number == SIGHUP:
                terminal.hang_up()
            self._forward(number)

    def _forward(self, number: int) -> None:
        try:
            _signal.pidfd_send_signal(self._pidfd, number)
        except (
            ProcessLookupError,
            PermissionError,
        ):  # it has just ended; or it is setuid, as ^C at a terminal would find too
            return

    def _stop(self, terminal: Terminal) -> None:
        """The caller's shell gets its terminal back as it was while we are stopped."""
        terminal.restore()
        posix.kill(posix.getpid(), SIGSTOP)
        terminal.begin()

    def _reap(self) -> None:
        """All children that have ended: the program, and as a subreaper those that it left."""
        while True:
            try:
                pid, status = posix.waitpid(-1, WNOHANG)
            except ChildProcessError:
                self._status = 0 if self._status is None else self._status
                return
            if pid == 0:
                return
            if pid == self._pid:
                self._status = status

    def _flush(self, terminal: Terminal) -> None:
        """What the program wrote last, for as long as someone reads it; a signal ends the wait."""
        terminal.drain()
        while terminal.unread():
            events = _poll({self._signals.fd: select.POLLIN, **terminal.wants()}, None)
            terminal.relay(events)
            if self._signals.fd in events and set(self._signals.pending()) - {SIGCHLD, SIGCONT, SIGWINCH}:
                return


def _poll(wanted: dict[int, int], milliseconds: int | None) -> dict[int, int]:
    poll = select.poll()
    for fd, mask in wanted.items():
        poll.register(fd, mask)
    return dict(poll.poll(milliseconds))
