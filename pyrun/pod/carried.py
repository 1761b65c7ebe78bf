"""A plan that a maker of the supervisor's carries out, and the process that comes of it.

The plan goes there as a sealed memfd. The maker may ask for something in the middle (a yield), and undoes when it is
told to or the connection is closed. A step that fails is the same error as if the plan had run here.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Callable
from struct import unpack
from typing import Any

from ..errors import PyrunError
from ..executor import Outcome, StepFailed
from ..plan.model.plan import Plan
from . import messages as m
from .calls import answer, ask, check, readable, receive

UNDO_S = 30.0
SEALS = 15  # F_SEAL_SEAL, SHRINK, GROW and WRITE


class MakerDied(PyrunError):
    """The process that carried a plan out was killed in the middle: what it left is found by the container's record."""


class Made(Outcome):
    """A process that the supervisor is the parent of: pid, and its pidfd. Close it."""

    __slots__ = ("_fd", "_trace")

    def __init__(self, plan: Plan, pid: int, pidfd: int, trace: int = -1) -> None:
        super().__init__(None, None, plan, pid)
        self._fd = pidfd
        self._trace = trace

    def pidfd(self) -> int:
        return self._fd

    def slot(self, number: int) -> int:
        return -1

    def took(self) -> list[int]:
        """As Outcome's; none where the supervisor is of a version that tells no times."""
        if self._trace < 0:
            return []
        steps = len(self.plan.steps)
        return [one - 1 for one in unpack(f"={steps}Q", os.pread(self._trace, 8 * steps, 0))]

    def close(self) -> None:
        for fd in (self._fd, self._trace):
            if fd >= 0:
                os.close(fd)
        self._fd = self._trace = -1


class Exec(Made):
    """An exec: also what its end is told by, so keep it open until wait() has returned. fileno() is readable then."""

    __slots__ = ("_socket",)

    def __init__(self, plan: Plan, pid: int, pidfd: int, told: socket.socket) -> None:
        super().__init__(plan, pid, pidfd)
        self._socket = told

    def fileno(self) -> int:
        return self._socket.fileno()

    def wait(self, timeout: float | None = None) -> int:
        """Its wait status; exit_code() makes it one of a shell's. TimeoutError; Gone where nobody can tell any more."""
        if not readable([self._socket.fileno()], timeout):
            raise TimeoutError(f"process {self.pid} has not ended")
        reply, _ = receive(self._socket)
        return reply.known()[0].status

    def close(self) -> None:
        super().close()
        self._socket.close()


class Carried:
    """One plan that a maker carries out: as a context, (RESULT, its descriptors, the connection). With keep the
    connection stays open. StepFailed as run_plan() raises it."""

    def __init__(
        self, directory: str, request: bytes, plan: Plan, fds: list[int], timeout: float, keep: bool, words: Any
    ) -> None:
        self._plan = plan
        self._ctr = m.name_of(request)
        self._keep = keep
        self._on_yield: Callable[[int, int], None] | None = words.get("on_yield")
        self._cancel: int = words.get("cancel", -1)
        self._timeout = timeout
        memfd = _sealed(plan.encode(trace=words.get("trace", False), **(words.get("fault") or {})))
        try:
            self._socket = ask(directory, request, memfd, *fds)
        finally:
            os.close(memfd)

    def __enter__(self) -> tuple[m.Reply, list[int], socket.socket]:
        try:
            reply, fds = self._wait()
            if reply.kind == m.DONE or not reply.body:
                self._refused(reply)
            result = m.Result(reply.body)
            if result.status:
                self._failed(result)
            return reply, fds, self._socket
        except BaseException:
            self._socket.close()
            raise

    def __exit__(self, *error: object) -> None:
        if not self._keep or error[0] is not None:
            self._socket.close()

    def _wait(self) -> tuple[m.Reply, list[int]]:
        """Its last word. Where the caller gives up or the time is over, the maker is told, and undoes."""
        last, given_up = time.monotonic() + self._timeout, False
        while True:
            watched = [self._socket.fileno()] + ([self._cancel] if self._cancel >= 0 and not given_up else [])
            ready = readable(watched, max(0.0, last - time.monotonic()))
            if self._socket.fileno() in ready:
                reply, fds = receive(self._socket)
                if reply.kind != m.YIELD:
                    return reply, fds
                self._yielded(reply)
            elif given_up:
                raise PyrunError(
                    f"a maker has not undone its plan in {UNDO_S:.0f} s", hint="it may wait for a disk that is stuck"
                )
            else:
                given_up, last = True, time.monotonic() + UNDO_S
                self._socket.shutdown(socket.SHUT_WR)

    def _yielded(self, reply: m.Reply) -> None:
        if self._on_yield is None:
            raise RuntimeError(f"nobody answers yield {reply.value}")
        try:
            self._on_yield(reply.value, reply.pid)
        except BaseException:
            self._socket.shutdown(socket.SHUT_WR)  # the maker undoes
            answer(self._socket, UNDO_S)
            raise
        self._socket.send(m.request(m.GO), socket.MSG_NOSIGNAL)

    def _refused(self, reply: m.Reply) -> None:
        if reply.kind == m.RESULT and reply.err == 10:
            how = f"signal {reply.value & 0x7F}" if reply.value & 0x7F else f"exit status {reply.value >> 8}"
            raise MakerDied(
                f"the process that made the container was ended by {how}",
                hint="was memory short? what it left is undone",
            )
        check(reply, self._ctr)
        raise PyrunError(f"the supervisor answered {reply.kind} to a plan", hint="is it of another version?")

    def _failed(self, result: m.Result) -> None:
        if result.lane >= len(self._plan.lanes):
            if result.err == 22:
                raise PyrunError("the C parts are not of this version of pyrun", hint="build or install both together")
            raise OSError(result.err, "the plan could not be set up")
        raise StepFailed(self._plan, result, result.text, [])


def _sealed(data: bytes) -> int:
    fd = os.memfd_create("plan", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(fd, "wb", closefd=False) as f:
            f.write(data)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd
