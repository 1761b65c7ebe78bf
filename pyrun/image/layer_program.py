"""Runs pyrun-layer, the C program that touches what an image brings, from any thread of a daemon.

It gets three descriptors and numbers, nothing else of ours: posix_spawn closes the rest before a line of it runs. It
reports in lines (cffi_build/layers/report.c). Every wait has an end: the caller's deadline, its cancel, or `patience_s`
without progress; then it is killed and reaped. It dies with the thread that waits for it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pyrun
from pyrun.errors import Aborted, DeadlineExceeded, PyrunError, ResourceExhausted

PROGRAM = Path(pyrun.__file__).parent / "bin" / "pyrun-layer"
PACKAGES = "libarchive-dev libisal-dev libzstd-dev nettle-dev"
LINE_MOST = 1 << 20  # of a report, before its newline
NOISE_MOST = 1000
ASK_S = 0.1
REAP_S = 10.0
FULL = (errno.ENOSPC, errno.EDQUOT)

Progress = Callable[[int, int, int], None]
"""Bytes of the blob that were read, bytes of the tar, entries."""


class Told(PyrunError):
    """What the program itself said of the directory, or of the disk below it."""


class BadEntry(PyrunError):
    """Something of one entry of the layer, which the text names."""


def what_is_missing() -> str | None:
    """Why layers can't be unpacked here, and None where they can."""
    if os.access(PROGRAM, os.X_OK):
        return None
    return f"pyrun was built without pyrun-layer: apt-get install {PACKAGES}, then build it again"


class Report:
    """What the program has told so far."""

    def __init__(self, progress: Progress | None) -> None:
        self.values: dict[str, str] | None = None
        self.implied: list[bytes] = []
        self.error: tuple[int, bytes | None, str] | None = None
        self.noise = b""
        self._rest = b""
        self._progress = progress

    def take(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_MOST:
            raise PyrunError("pyrun-layer said something without an end")
        for line in lines:
            self._take_line(line)

    def _take_line(self, line: bytes) -> None:
        word, _, rest = line.partition(b" ")
        if word == b"progress":
            if self._progress:
                read, made, entries = map(int, rest.split())
                self._progress(read, made, entries)
        elif word == b"implied":
            self.implied.append(bytes.fromhex(rest.decode()))
        elif word == b"done":
            self.values = dict(pair.split("=", 1) for pair in rest.decode().split())
        elif word == b"error":
            number, name, text = rest.decode(errors="replace").split(" ", 2)
            self.error = int(number), None if name == "-" else bytes.fromhex(name), text
        else:  # the dynamic linker's, or a sanitizer's
            self.noise = (self.noise + line + b"\n")[:NOISE_MOST]


def _spawn(verb: str, options: Mapping[str, int], blob: int | None, directory: int, report: int) -> int:
    """Starts it. Descriptors are copied above those that it is to have: none is overwritten before it is used."""
    held: list[int] = []
    try:
        if blob is None:
            held.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
        for fd in (held[0] if blob is None else blob, directory, report):
            held.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10))
        source, target, report = held[-3:]
        return os.posix_spawn(
            PROGRAM,
            ["pyrun-layer", verb, f"parent={os.getpid()}", *(f"{key}={value}" for key, value in options.items())],
            {},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, source, 0),
                (os.POSIX_SPAWN_DUP2, report, 1),
                (os.POSIX_SPAWN_DUP2, report, 2),
                (os.POSIX_SPAWN_DUP2, target, 3),
            ],
            setpgroup=0,  # a terminal's ^C is for us to hand on
            setsigmask=[],
            setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
        )
    finally:
        for fd in held:
            os.close(fd)


def _wait_for(fd: int, seconds: float) -> bool:
    """Whether it is readable by then. Not select(2): a daemon has more than 1024 descriptors."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _reap(pidfd: int) -> int:
    """Its status: an exit code, or minus a signal. It has closed its report, or was killed, so it ends now."""
    if not _wait_for(pidfd, REAP_S):
        raise PyrunError(
            "pyrun-layer does not end", hint="a process that even SIGKILL does not end waits for a disk: see dmesg"
        )
    ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    assert ended is not None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def _listen(
    report: Report, pipe: int, deadline: float | None, patience_s: float | None, cancel: Callable[[], bool] | None
) -> None:
    """Takes lines until it closes the pipe."""
    heard = time.monotonic()
    while True:
        now = time.monotonic()
        if cancel and cancel():
            raise Aborted("unpacking was cancelled")
        if deadline is not None and now > deadline:
            raise DeadlineExceeded("unpacking took too long")
        if patience_s is not None and now > heard + patience_s:
            raise DeadlineExceeded(f"unpacking has made no progress for {patience_s:g} s")
        if not _wait_for(pipe, ASK_S if cancel else min(1.0, patience_s or 1.0)):
            continue
        data = os.read(pipe, 1 << 16)
        if not data:
            return
        heard = time.monotonic()
        report.take(data)


def run(
    verb: str,
    directory: int,
    *,
    blob: int | None = None,
    options: Mapping[str, int] | None = None,
    progress: Progress | None = None,
    deadline_s: float | None = None,
    patience_s: float | None = None,
    cancel: Callable[[], bool] | None = None,
) -> Report:
    """Runs the verb on the directory. The report, whose `values` are there; or PyrunError with the entry's name.

    deadline_s: in all. patience_s: without a line from it, which tells of progress each 100 ms as long as there is
    any. cancel: asked each 100 ms.
    """
    if missing := what_is_missing():
        raise PyrunError("layers can't be unpacked", hint=missing)
    report = Report(progress)
    deadline = None if deadline_s is None else time.monotonic() + deadline_s
    pipe, end = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            pid = _spawn(verb, options or {}, blob, directory, end)
        finally:
            os.close(end)
        pidfd = os.pidfd_open(pid)
        try:
            try:
                _listen(report, pipe, deadline, patience_s, cancel)
            except BaseException:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                _reap(pidfd)
                raise
            _judge(report, _reap(pidfd), verb)
        finally:
            os.close(pidfd)
    finally:
        os.close(pipe)
    return report


def _judge(report: Report, status: int, verb: str) -> None:
    if report.error is not None:
        number, entry, text = report.error
        where = "" if entry is None else f"entry {os.fsdecode(entry)}: "
        why = f": {os.strerror(number).lower()}" if number not in (errno.EINVAL, errno.EFBIG, errno.EBADMSG, 0) else ""
        kind = ResourceExhausted if number in FULL else Told if entry is None else BadEntry
        hint = "the file system of the image store is full" if number in FULL else None
        raise kind(f"{where}{text}{why}", hint=hint)
    if status == 0 and report.values is not None:
        return
    said = report.noise.decode(errors="replace").strip().replace("\n", "; ")
    how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    hint = None
    if status == 127:
        hint = f"a library of it is missing: apt-get install {PACKAGES}"
    elif status == -signal.SIGSYS:
        hint = "it made a system call that its filter forbids: the layer attacks it, or it is a bug of ours"
    raise PyrunError(f"pyrun-layer {verb} {how}{': ' + said if said else ''}", hint=hint)
