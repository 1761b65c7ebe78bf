"""The caller's terminal joined to a container's: raw mode, size, and bytes both ways, as ssh has it.

A program that hangs must not hang us, nor one that nobody reads: nothing here blocks, and each direction holds at most
LIMIT bytes and stops reading its source when these are full. Standard output may be shared with others, so its
O_NONBLOCK is not ours to set: it is opened anew where that can be, and else written in pieces that poll(2) has said
will fit. `restore` may be called at any time and any number of times.
"""

from __future__ import annotations

import posix
import select
import sys
import termios

from pyrun.errors import PyrunError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from typing import Any

LIMIT = 65536
PIECE = 4096  # PIPE_BUF: what poll says fits
HUNG_MS = 100
IFLAG, OFLAG, CFLAG, LFLAG, CC = 0, 1, 2, 3, 6
S_IFMT, S_IFIFO, S_IFCHR = 0o170000, 0o010000, 0o020000
MSG_CMSG_CLOEXEC = 0x40000000
READABLE = select.POLLIN | select.POLLHUP | select.POLLERR


def make_socket() -> tuple[socket, socket]:
    """A pair: ours, and the one that the container's child sends its terminal over."""
    import _socket

    return _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)


def receive_master(ours: socket) -> int:
    """The descriptor that was sent over the pair."""
    _, ancillary, _, _ = ours.recvmsg(64, 64, MSG_CMSG_CLOEXEC)
    for _level, _kind, data in ancillary:
        if len(data) >= 4:
            return int.from_bytes(data[:4], sys.byteorder)
    raise PyrunError("the container sent no terminal")


def caller_size() -> tuple[int, int] | None:
    """(rows, columns) of the first of our streams that is a terminal; None where none is, or it has no size."""
    for fd in (0, 1, 2):
        try:
            rows, columns = termios.tcgetwinsize(fd)
        except (OSError, termios.error):
            continue
        if rows and columns:
            return rows, columns
    return None


def is_plain() -> bool:
    """Output goes to a file or a pipe, where lines should end as the program writes them."""
    return not posix.isatty(1)


def raw_mode(mode: list[Any]) -> list[Any]:
    """cfmakeraw(3) of what tcgetattr gave."""
    raw = [*mode[:CC], list(mode[CC])]
    raw[IFLAG] &= ~(
        termios.IGNBRK
        | termios.BRKINT
        | termios.PARMRK
        | termios.ISTRIP
        | termios.INLCR
        | termios.IGNCR
        | termios.ICRNL
        | termios.IXON
    )
    raw[OFLAG] &= ~termios.OPOST
    raw[CFLAG] = raw[CFLAG] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    raw[LFLAG] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    raw[CC][termios.VMIN], raw[CC][termios.VTIME] = 1, 0
    return raw


class Terminal:
    """Relays between descriptors 0 and 1 and the master end of a container's terminal, which it owns."""

    __slots__ = (
        "_hung",
        "_input",
        "_master",
        "_mode",
        "_out",
        "_output",
        "_owns_out",
        "_raw",
        "_stdin",
        "_tail",
        "_tty",
    )

    def __init__(self, master: int, stdin: int = 0, stdout: int = 1) -> None:
        self._master = master
        self._stdin = stdin if _is_open(stdin) else -1
        self._tty = stdin if self._stdin >= 0 and posix.isatty(stdin) else -1
        self._out, self._owns_out = _own_writer(stdout)
        self._input, self._output = bytearray(), bytearray()
        self._mode: list[Any] | None = None
        self._hung = self._raw = False
        self._tail = b"\n"  # the last byte of the input
        posix.set_blocking(master, False)

    # --- the caller's terminal ---

    def begin(self) -> None:
        """Raw mode and the size; again after we were stopped."""
        self.resize()
        if self._tty < 0 or self._master < 0:
            return
        try:
            if not self._raw:
                self._mode = termios.tcgetattr(self._tty)
                self._raw = True
            assert self._mode is not None
            termios.tcsetattr(self._tty, termios.TCSANOW, raw_mode(self._mode))
        except (OSError, termios.error):  # it has been closed meanwhile
            self._raw = False

    def restore(self) -> None:
        """The caller's terminal as it was. One that has another foreground job now is not ours to change."""
        if not self._raw or self._mode is None:
            return
        self._raw = False
        try:
            if posix.tcgetpgrp(self._tty) != posix.getpgrp():
                return
        except OSError:  # not our controlling terminal: there are no jobs on it
            pass
        try:
            termios.tcsetattr(self._tty, termios.TCSANOW, self._mode)
        except (OSError, termios.error):
            return

    def resize(self) -> None:
        """The container's terminal gets the caller's size, and its program a SIGWINCH if that has changed."""
        size = caller_size()
        if size is None or self._master < 0:
            return
        try:
            termios.tcsetwinsize(self._master, size)
        except (OSError, termios.error):
            return

    def hang_up(self) -> None:
        """Closes the master: the program's terminal is gone, as when a modem hangs up."""
        if self._master >= 0:
            posix.close(self._master)
        self._master = -1
        self._stdin = -1
        self._input.clear()

    def close(self) -> None:
        self.restore()
        self.hang_up()
        if self._owns_out:
            posix.close(self._out)
            self._owns_out = False

    # --- the bytes ---

    def wants(self) -> dict[int, int]:
        """Descriptors and what to poll them for."""
        wanted = {}
        if self._stdin >= 0 and len(self._input) < LIMIT:
            wanted[self._stdin] = select.POLLIN
        mask = (select.POLLIN if len(self._output) < LIMIT else 0) | (select.POLLOUT if self._input else 0)
        if self._master >= 0 and not self._hung and mask:
            wanted[self._master] = mask
        if self._output:
            wanted[self._out] = select.POLLOUT
        return wanted

    def patience(self) -> int | None:
        """Milliseconds until the next look. Of an other end that all have closed poll says nothing new, and someone may
        open it again.
        """
        return HUNG_MS if self._hung and self._master >= 0 else None

    def relay(self, events: dict[int, int]) -> None:
        """One turn, after poll has said what is ready."""
        if self._stdin in events and self._stdin >= 0:
            self._read_input()
        master = events.get(self._master, 0) if self._master >= 0 else 0
        if master & select.POLLOUT or (master and self._input):
            self._write_input()
        if self._master >= 0 and (self._hung or master & READABLE):
            self._hung = not self._read_output()
        if self._out in events and self._output:
            self._write_output()

    def drain(self) -> None:
        """Reads what is left when the program has ended. Its children may hold the terminal: we don't wait for them."""
        self._stdin = -1
        self._input.clear()
        while self._master >= 0 and self._read_output(1 << 20):
            pass
        self.hang_up()

    def unread(self) -> bool:
        return bool(self._output)

    def _read_input(self) -> None:
        try:
            data = posix.read(self._stdin, LIMIT)
        except BlockingIOError:
            return
        except OSError:  # EIO: the terminal is gone
            data = b""
        if data:
            self._input += data
            self._tail = data[-1:]
            return
        self._stdin = -1
        if self._tty >= 0:
            self.hang_up()
        else:
            self._end_input()

    def _end_input(self) -> None:
        """The end of a file or a pipe, as a person types it: twice in the midst of a line, for the first only sends
        the line.
        """
        if self._master < 0:
            return
        try:
            mode = termios.tcgetattr(self._master)
        except (OSError, termios.error):
            return
        if mode[LFLAG] & termios.ICANON:
            end: bytes = mode[CC][termios.VEOF]
            self._input += end if self._tail == b"\n" else end + end

    def _write_input(self) -> None:
        try:
            count = posix.write(self._master, self._input[:LIMIT])
        except BlockingIOError:
            return
        except OSError:
            count = len(self._input)
        del self._input[:count]

    def _read_output(self, limit: int = LIMIT) -> bool:
        """False at EIO: nobody has the other end open, or nobody can be told."""
        if len(self._output) >= limit:
            return False
        try:
            data = posix.read(self._master, LIMIT)
        except BlockingIOError:
            return limit == LIMIT
        except OSError:
            return False
        self._output += data
        return bool(data)

    def _write_output(self) -> None:
        try:
            count = posix.write(self._out, self._output[: LIMIT if self._owns_out else PIECE])
        except BlockingIOError:
            return
        except OSError:  # the reader is gone: the program hears of it as of a terminal that is
            self._output.clear()
            self.hang_up()
            return
        del self._output[:count]


def _is_open(fd: int) -> bool:
    try:
        posix.fstat(fd)
    except OSError:
        return False
    return True


def _own_writer(fd: int) -> tuple[int, bool]:
    """(descriptor to write to, whether it is ours alone and does not block)."""
    try:
        kind = posix.fstat(fd).st_mode & S_IFMT
        if kind == S_IFIFO or posix.isatty(fd):
            return posix.open(
                f"/proc/self/fd/{fd}", posix.O_WRONLY | posix.O_NONBLOCK | posix.O_NOCTTY | posix.O_CLOEXEC
            ), True
    except OSError:
        pass
    return fd, False
