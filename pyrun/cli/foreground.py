"""The foreground of run and exec: hands signals on to the program, reaps, relays its terminal, learns how it ended.

Signals are blocked from before the container is made until somebody listens, so none is lost and none stops a plan
halfway. The C module `_signal` writes each one's number to a pipe that the loop polls; the module `signal` is not
imported, for it costs 6 ms. The process is waited for by its pidfd, so that a caller's own SIGCHLD habits don't matter.
"""

from __future__ import annotations

import posix
import select

from pyrun.cli.interrupts import Interrupts
from pyrun.executor import drop_image
from pyrun.oci.model import Process
from pyrun.plan.process.exec_process import with_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from _socket import socket
    from collections.abc import Callable
    from typing import Any

    from pyrun.cli.console import Terminal
else:
    import _signal

SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGWINCH, SIGHUP = 17, 18, 19, 20, 21, 22, 28, 1
# Not KILL and STOP, which nobody can catch; not what a fault of our own raises; 32 and 33 are the C library's.
_OURS = {4, 7, 8, 9, 11, 19, 32, 33}
SIGPIPE = 13
# With a terminal these are about ours, and not the program's: we stop in the background; a lost reader is no signal.
OF_OUR_TERMINAL = frozenset((SIGPIPE, SIGTTIN, SIGTTOU))
CAUGHT = frozenset(range(1, 65)) - _OURS
WNOHANG = 1


def exit_code(status: int) -> int:
    """A wait status as a shell has it: the program's own, or 128+n for signal n."""
    code = posix.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


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


class Joint:
    """What joins a foreground command to its program: the signals from before it is made, and the terminal that it
    makes, if one is wanted. Close it."""

    __slots__ = ("_interrupts", "_ours", "_signals", "_terminal", "_theirs")

    def __init__(self) -> None:
        self._interrupts = Interrupts()
        self._ours: socket | None = None
        self._theirs: socket | None = None
        self._signals: Signals | None = None
        self._terminal: Terminal | None = None

    def socket(self) -> tuple[int, bool]:
        """A terminal is wanted: console and plain_output for the request."""
        from pyrun.cli.console import is_plain, make_socket

        self._ours, self._theirs = make_socket()
        return self._theirs.fileno(), is_plain()

    @property
    def cancel(self) -> int:
        """For Runtime.run(): signals that end a program end the making of one."""
        return self._interrupts.cancel

    @staticmethod
    def sized(process: Process) -> Process:
        """The process whose terminal has the caller's size from the first moment."""
        from pyrun.cli.console import caller_size

        size = caller_size()
        return with_size(process, *size) if size else process

    def hold_signals(self) -> None:
        self._signals = Signals(OF_OUR_TERMINAL if self._ours is not None else frozenset())

    def foreground(self, pid: int, pidfd: int) -> Foreground:
        """The program runs: its terminal is relayed from now on, and the signals that were held back come through."""
        assert self._signals is not None
        if self._ours is not None:
            from pyrun.cli.console import Terminal, receive_master

            self._terminal = Terminal(receive_master(self._ours))
            self._close_sockets()
            self._terminal.begin()
        self._interrupts.forget()
        self._signals.listen()
        drop_image()
        return Foreground(pid, pidfd, self._signals, self._terminal)

    def restore_terminal(self) -> None:
        if self._terminal is not None:
            self._terminal.close()
            self._terminal = None

    def close(self) -> None:
        self.restore_terminal()
        self._close_sockets()
        self._interrupts.close()
        if self._signals is not None:
            self._signals.close()

    def _close_sockets(self) -> None:
        for end in (self._ours, self._theirs):
            if end is not None:
                end.close()
        self._ours = self._theirs = None
