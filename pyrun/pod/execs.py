"""Commands that are run in a container: for ExecSync with what they write kept, and for a stream with its descriptors.

Each is in a cgroup of its own below the container's, so that all it has started can be killed with it. What it leaves
running may hold its pipes for ever: they are read for a second after its end, and no longer.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time

from ..errors import DeadlineExceeded, InvalidArgument, PyrunError
from ..rights import receive_message
from .carried import Exec
from .container import check_runs
from .handler.own import supervisor_of
from .messages import exit_code
from .pod import Container
from .state import NodeState

MOST_BYTES = 16 << 20  # of each stream; the rest is read and dropped (CVE-2022-31030)
DRAIN_S = 1.0
CHUNK = 1 << 16


class Running:
    """A command of a container's: its descriptors as stream.backend.Command has them. name: of its cgroup, where it has
    one."""

    def __init__(
        self, c: Container, made: Exec, name: str | None, stdin: int, stdout: int, stderr: int, master: int = -1
    ) -> None:
        self._container, self._made, self._name, self._master = c, made, name, master
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr
        self.done = made.fileno()

    def code(self) -> int:
        return exit_code(self._made.wait(0))

    def resize(self, width: int, height: int) -> None:
        if self._master >= 0:
            import termios

            with contextlib.suppress(OSError):
                termios.tcsetwinsize(self._master, (height, width))

    def kill(self) -> None:
        """It and all that it has started."""
        if self._name:
            path = f"{self._container.record.cgroup}/{self._name}/cgroup.kill"
            with contextlib.suppress(OSError), open(path, "w") as file:
                file.write("1")
                return
        with contextlib.suppress(ProcessLookupError):
            import signal

            signal.pidfd_send_signal(self._made.pidfd(), signal.SIGKILL)

    def close(self) -> None:
        if self._master >= 0:
            os.close(self._master)
            self._master = -1
        self._made.close()
        if self._name:
            self._container.exec_cgroups.end(self._container.record.cgroup, self._name)
            self._name = None


def run(
    pods: NodeState, c: Container, argv: tuple[str, ...], *, tty: bool, stdin: bool, stdout: bool, stderr: bool
) -> Running:
    """Starts a command. PyrunError."""
    if not argv:
        raise InvalidArgument("cmd is empty")
    check_runs(c)
    supervisor_of(c)
    name = c.exec_cgroups.make(c.record.cgroup)
    try:
        if tty:
            return _with_terminal(pods, c, argv, name)
        return _with_pipes(pods, c, argv, name, (stdin, stdout, stderr))
    except BaseException:
        if name:
            c.exec_cgroups.end(c.record.cgroup, name)
        raise


def _with_pipes(
    pods: NodeState, c: Container, argv: tuple[str, ...], name: str | None, wanted: tuple[bool, bool, bool]
) -> Running:
    theirs: list[int] = []
    ours: list[int] = []
    try:
        for asked, writes in zip(wanted, (False, True, True), strict=True):
            if not asked:
                theirs.append(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC))
                ours.append(-1)
                continue
            reader, writer = os.pipe2(os.O_CLOEXEC)
            theirs.append(writer if writes else reader)
            ours.append(reader if writes else writer)
        made = pods.handler(c.pod).exec(c, argv, name, (theirs[0], theirs[1], theirs[2]))
        return Running(c, made, name, *ours)
    except BaseException:
        for fd in ours:
            if fd >= 0:
                os.close(fd)
        raise
    finally:
        for fd in theirs:
            os.close(fd)


def _with_terminal(pods: NodeState, c: Container, argv: tuple[str, ...], name: str | None) -> Running:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        made = pods.handler(c.pod).exec(c, argv, name, None, theirs.fileno())
        try:
            ours.settimeout(10)
            _, fds = receive_message(ours, 4096)
            if len(fds) != 1:
                raise PyrunError("the command's terminal did not come")
        except BaseException:
            Running(c, made, name, -1, -1, -1).kill()
            made.close()
            raise
    master = fds[0]
    return Running(c, made, name, os.dup(master), os.dup(master), -1, master)


def run_to_its_end(pods: NodeState, c: Container, argv: tuple[str, ...], timeout: float) -> tuple[int, bytes, bytes]:
    """(exit code, what it wrote to stdout, and to stderr), the first 16 MiB of each. timeout: seconds, 0: none.
    DeadlineExceeded, when it and what it started have been killed."""
    running = run(pods, c, argv, tty=False, stdin=False, stdout=True, stderr=True)
    streams = {running.stdout: bytearray(), running.stderr: bytearray()}
    try:
        if not _collect(running, streams, timeout):
            running.kill()
            raise DeadlineExceeded(f"command {argv[0]!r} timed out after {timeout:.0f} s")
        return running.code(), bytes(streams[running.stdout]), bytes(streams[running.stderr])
    finally:
        for fd in streams:
            os.close(fd)
        running.close()


def _collect(running: Running, streams: dict[int, bytearray], timeout: float) -> bool:
    """Reads until it has ended, and a second longer at most. False: the time was over before."""
    poll = select.poll()
    for fd in streams:
        os.set_blocking(fd, False)
        poll.register(fd, select.POLLIN)
    poll.register(running.done, select.POLLIN)
    last = time.monotonic() + timeout if timeout else None
    left, ended = set(streams), False
    while left or not ended:
        wait = None if last is None else max(0.0, last - time.monotonic())
        ready = poll.poll(None if wait is None else wait * 1000)
        if not ready:
            return ended
        for fd, _ in ready:
            if fd == running.done:
                ended, last = True, time.monotonic() + DRAIN_S
                poll.unregister(fd)
            elif not _read_some(fd, streams[fd]):
                left.discard(fd)
                poll.unregister(fd)
        if last is not None and time.monotonic() >= last:
            return ended
    return True


def _read_some(fd: int, into: bytearray) -> bool:
    """False at its end."""
    try:
        data = os.read(fd, CHUNK)
    except BlockingIOError:
        return True
    into += data[: MOST_BYTES - len(into)]
    return bool(data)
