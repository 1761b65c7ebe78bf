"""Containers that are none: a backend of the streaming server whose programs are processes of the test's own, with real
pipes and terminals. `attach` is served by a process for each container, in the supervisor's packets."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import socket
import struct
import subprocess
import termios
import threading
from collections.abc import Callable

from pyrun.errors import NotFound, PyrunError


def set_size(fd: int, width: int, height: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


def _lead() -> None:
    """In the child: a session of its own with the terminal."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Command:
    def __init__(
        self,
        argv: tuple[str, ...],
        tty: bool,
        stdin: bool,
        stdout: bool,
        stderr: bool,
        on_close: Callable[[Command], None],
    ):
        self.stdin = self.stdout = self.stderr = -1
        theirs: list[int] = []
        self._master = -1
        if tty:
            master, slave = pty.openpty()
            theirs = [slave] * 3
            self.stdin = os.dup(master) if stdin else -1
            self.stdout = os.dup(master)
            self._master = master
        else:
            for fd, wanted in ((0, stdin), (1, stdout), (2, stderr)):
                theirs.append(self._pipe(fd) if wanted else os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC))
        try:
            self.process = subprocess.Popen(
                argv, stdin=theirs[0], stdout=theirs[1], stderr=theirs[2], preexec_fn=_lead if tty else os.setsid
            )
        except OSError as error:
            for fd in (self.stdin, self.stdout, self.stderr, self._master):
                if fd >= 0:
                    os.close(fd)
            raise PyrunError(f"exec {argv[0]}: {error.strerror}")
        finally:
            for fd in set(theirs):
                os.close(fd)
        self.done = os.pidfd_open(self.process.pid)
        self._on_close = on_close

    def _pipe(self, fd: int) -> int:
        """The program's end."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        ours, its = (writer, reader) if fd == 0 else (reader, writer)
        setattr(self, ("stdin", "stdout", "stderr")[fd], ours)
        return its

    def code(self) -> int:
        code = self.process.wait(10)
        return code if code >= 0 else 128 - code

    def resize(self, width: int, height: int) -> None:
        if self._master >= 0:
            set_size(self._master, width, height)

    def close(self) -> None:
        os.close(self.done)
        if self._master >= 0:
            os.close(self._master)
            self._master = -1
        self._on_close(self)


class Attachment:
    def __init__(self, container: Container, stdin: bool) -> None:
        self._container = container
        self.stdin = os.dup(container.input) if stdin else -1
        self.socket = container.look_on()

    def stdin_ended(self) -> None:
        self._container.close_input()

    def resize(self, width: int, height: int) -> None:
        if self._container.tty:
            set_size(self._container.input, width, height)

    def close(self) -> None:
        pass


class Container:
    """A process whose output a thread hands to who looks on, as pyrun-pod does."""

    def __init__(self, argv: tuple[str, ...], tty: bool) -> None:
        self.tty = tty
        self._ends: list[socket.socket] = []
        self._lock = threading.Lock()
        if tty:
            self.input, slave = pty.openpty()
            self.process = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, preexec_fn=_lead)
            os.close(slave)
            outputs = [(1, os.dup(self.input))]
        else:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
            )
            assert self.process.stdin and self.process.stdout and self.process.stderr
            self.input = os.dup(self.process.stdin.fileno())
            self.process.stdin.close()
            outputs = [(1, os.dup(self.process.stdout.fileno())), (2, os.dup(self.process.stderr.fileno()))]
            self.process.stdout.close()
            self.process.stderr.close()
        self._left = len(outputs)
        self._threads = [threading.Thread(target=self._tee, args=pair, daemon=True) for pair in outputs]
        for thread in self._threads:
            thread.start()

    def look_on(self) -> int:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with self._lock:
            if self._left:
                self._ends.append(ours)
            else:
                ours.close()
        return theirs.detach()

    def close_input(self) -> None:
        if not self.tty and self.input >= 0:
            os.close(self.input)
            self.input = -1

    def _tee(self, number: int, fd: int) -> None:
        while True:
            try:
                data = os.read(fd, 32768)
            except OSError:
                data = b""
            with self._lock:
                if not data:
                    self._left -= 1
                    if not self._left:
                        for end in self._ends:
                            end.close()
                    os.close(fd)
                    return
                for end in self._ends:
                    try:
                        end.send(bytes((number,)) + data)
                    except OSError:
                        pass

    def end(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        for thread in self._threads:
            thread.join(5)
        if self.input >= 0:
            os.close(self.input)
            self.input = -1


class Backend:
    """Every container is "ctr" unless it was put into `containers`; "missing" is none."""

    def __init__(self) -> None:
        self.containers: dict[str, Container] = {}
        self.commands: list[Command] = []
        self.closed = 0
        self.netns_path: str | None = None

    def exec(
        self, container: str, argv: tuple[str, ...], *, tty: bool, stdin: bool, stdout: bool, stderr: bool
    ) -> Command:
        if container == "missing":
            raise NotFound("container missing: not found")
        command = Command(argv, tty, stdin, stdout, stderr, self._closed)
        self.commands.append(command)
        return command

    def _closed(self, command: Command) -> None:
        self.closed += 1

    def attach(self, container: str, *, tty: bool, stdin: bool, stdout: bool, stderr: bool) -> Attachment:
        if container not in self.containers:
            raise NotFound(f"container {container}: not found")
        return Attachment(self.containers[container], stdin)

    def netns(self, pod: str) -> int:
        if pod == "missing":
            raise NotFound("pod missing: not found")
        return -1 if self.netns_path is None else os.open(self.netns_path, os.O_RDONLY | os.O_CLOEXEC)

    def end(self) -> None:
        for command in self.commands:
            if command.process.poll() is None:
                command.process.kill()
                command.process.wait()
        for container in self.containers.values():
            container.end()
