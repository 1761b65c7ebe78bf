"""What joins run or exec in the foreground to its program: the signals from before it is made, the terminal that it
makes, and who waits for it.

Signals are blocked from before the container is made until somebody listens, so none is lost and none stops a plan
halfway. Without a terminal nothing of Python is needed once the program runs. So the launcher takes our place, in the
same process: it hands signals on, waits, and removes the container. The interpreter's memory goes while the program
begins, not when it has ended. Else we wait (waiting.py).
"""

from __future__ import annotations

import posix

from pyrun.cli.hot import finish
from pyrun.cli.interrupts import Interrupts
from pyrun.cli.signals import OF_OUR_TERMINAL, Signals, heed_children
from pyrun.oci.model import Process
from pyrun.plan.process.exec_process import with_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket

    from pyrun.cli.console import Terminal
    from pyrun.cli.main import Globals
    from pyrun.cli.waiting import Foreground


class Joint:
    """Of one command. Close it."""

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
        heed_children()
        self._signals = Signals(OF_OUR_TERMINAL if self._ours is not None else frozenset())

    def leave_to_launcher(self, g: Globals, id: str, pid: int, pidfd: int, *, delete: bool) -> None:
        """The program runs: from here on this process is the launcher, which exits as it does. delete: and removes the
        container then. Returns where it can't be, as without its file: then foreground() does it."""
        if g.debug or self._ours is not None:
            return
        words = ["pyrun", "--root", g.root]
        if g.log:
            words += ["--log", g.log, "--log-format", g.log_format]
        words += ["wait~", "--id", id, "--pid", str(pid), "--pidfd", str(pidfd), *(["--delete"] if delete else [])]
        finish()
        posix.set_inheritable(pidfd, True)
        try:
            posix.execve(__file__.rpartition("/cli/")[0] + "/bin/pyrun", words, posix.environ)
        except OSError:
            posix.set_inheritable(pidfd, False)

    def foreground(self, pid: int, pidfd: int) -> Foreground:
        """The program runs: its terminal is relayed from now on, and the signals that were held back come through."""
        from pyrun.cli.waiting import Foreground
        from pyrun.executor import drop_image

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
