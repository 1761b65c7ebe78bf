"""Between the caller's streams and a container's, of which the agent has sent the descriptors.

Without a terminal each direction is a thread that waits in read(2) and write(2): none can hold up another, and a
program that no longer reads has its end of the pipe closed. The end of the caller's standard input closes the
program's. With a terminal, `console.py` relays, as for `pyrun exec`.
"""

from __future__ import annotations

import os
import select
import socket
import threading

from pyrun.cli.console import Terminal, caller_size
from pyrun.cli.signals import OF_OUR_TERMINAL, SIGCONT, SIGHUP, SIGSTOP, SIGTSTP, SIGWINCH, Signals
from pyrun.errors import Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.node.agent.remote import RemoteAttachment, RemoteCommand

CHUNK = 1 << 16
PIPE_MOST = 1 << 16  # what a pipe holds
DRAIN_S = 1.0  # for what a child of the program's that has outlived it may still write
OUT, ERR = 1, 2
ENDING = (1, 2, 3, 15)  # HUP, INT, QUIT, TERM: at a terminal they come of other processes than its keys


def relay_command(command: RemoteCommand) -> int:
    """Its exit code, when all that it wrote is written."""
    _start(0, command.stdin)
    outputs = [_start(command.stdout, OUT), _start(command.stderr, ERR)]
    command.stdin = command.stdout = command.stderr = -1
    select.select([command.done], [], [])
    for copy in outputs:
        if copy is not None:
            copy.drain()
    return command.code()


def _start(source: int, sink: int) -> _Copy | None:
    """Copies until the source's end; None where one of both is missing."""
    if source < 0 or sink < 0:
        return None
    for fd in (source, sink):
        if fd > ERR:
            os.set_blocking(fd, True)
    copy = _Copy(source, sink)
    copy.start()
    return copy


class _Copy(threading.Thread):
    """The caller's own three descriptors stay open."""

    def __init__(self, source: int, sink: int) -> None:
        super().__init__(daemon=True)
        self._source, self._sink = source, sink
        self._copied, self._writes = 0, False

    def run(self) -> None:
        try:
            while data := os.read(self._source, CHUNK):
                self._writes = True
                _write(self._sink, data)
                self._copied += len(data)
                self._writes = False
        except OSError:
            pass  # the reader has gone, or a terminal hangs up
        finally:
            self._writes = False
            for fd in (self._source, self._sink):
                if fd > ERR:
                    os.close(fd)

    def drain(self) -> None:
        """The program has ended: what it wrote is in the pipe or in our hands, and the caller may take it slowly."""
        last = self._copied + PIPE_MOST + CHUNK  # what is more, a child of it has written since
        while self.is_alive() and self._copied <= last:
            before = self._copied
            self.join(DRAIN_S)
            if not self._writes and self._copied == before:
                return


def _write(fd: int, data: bytes) -> None:
    """All of it; standard output may be somebody's who has made it non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])


def relay_terminal(command: RemoteCommand) -> int:
    """Its exit code; 128 + n where signal n has ended us. The caller's terminal is as it was in the end."""
    os.close(command.stdin)  # the same terminal: one is enough for both directions
    terminal = Terminal(command.stdout)
    command.stdin = command.stdout = -1
    signals = Signals(OF_OUR_TERMINAL)
    try:
        terminal.begin()
        signals.listen()
        while True:
            events = _poll({signals.fd: select.POLLIN, command.done: select.POLLIN}, terminal)
            if signals.fd in events and (number := _signalled(signals, terminal)):
                return 128 + number
            if command.done in events:
                break
        terminal.drain()
        while terminal.unread():
            if signals.fd in _poll({signals.fd: select.POLLIN}, terminal) and _signalled(signals, terminal):
                break
        return command.code()
    finally:
        terminal.close()
        signals.close()


def _poll(wanted: dict[int, int], terminal: Terminal) -> dict[int, int]:
    poll = select.poll()
    for fd, mask in (*wanted.items(), *terminal.wants().items()):
        poll.register(fd, mask)
    events = dict(poll.poll(terminal.patience()))
    terminal.relay(events)
    return events


def _signalled(signals: Signals, terminal: Terminal) -> int:
    """The number of a signal that ends us, or 0."""
    for number in signals.pending():
        if number == SIGWINCH:
            terminal.resize()
        elif number == SIGTSTP:
            terminal.restore()
            os.kill(os.getpid(), SIGSTOP)
            terminal.begin()
        elif number == SIGCONT:
            terminal.begin()
        elif number in ENDING:
            if number == SIGHUP:
                terminal.hang_up()
            return number
    return 0


def relay_attachment(attachment: RemoteAttachment, *, tty: bool) -> int:
    """0 when the container has ended."""
    ours = socket.socket(fileno=attachment.socket)
    attachment.socket = -1
    ours.setblocking(True)
    signals = Signals(OF_OUR_TERMINAL) if tty else None
    screen = _Screen(attachment) if tty else None
    try:
        if signals is not None and screen is not None:
            screen.begin()
            signals.listen()
        stdin, attachment.stdin = attachment.stdin, -1
        _start(0, stdin)
        while True:
            ready, _, _ = select.select([ours.fileno(), *([signals.fd] if signals else [])], [], [])
            if signals is not None and screen is not None and signals.fd in ready:
                for number in signals.pending():
                    if number == SIGWINCH:
                        screen.resize()
                    elif number in ENDING:
                        return 128 + number
            if ours.fileno() in ready:
                data = ours.recv(CHUNK + 1)
                if not data:
                    return 0
                _write(ERR if data[0] == ERR else OUT, data[1:])
    except ConnectionError:
        raise Unavailable("the attachment was cut", hint="who does not read fast enough is left behind") from None
    finally:
        if screen is not None:
            screen.restore()
        if signals is not None:
            signals.close()
        ours.close()


class _Screen:
    """The caller's terminal in raw mode, while the container's is told its size."""

    def __init__(self, attachment: RemoteAttachment) -> None:
        import termios

        self._attachment, self._termios = attachment, termios
        self._mode = termios.tcgetattr(0)

    def begin(self) -> None:
        from pyrun.cli.console import raw_mode

        self._termios.tcsetattr(0, self._termios.TCSANOW, raw_mode(self._mode))
        self.resize()

    def resize(self) -> None:
        if size := caller_size():
            rows, columns = size
            self._attachment.resize(columns, rows)

    def restore(self) -> None:
        self._termios.tcsetattr(0, self._termios.TCSANOW, self._mode)
