"""kill: a signal to the init, through a pidfd so that it can't reach another process."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` costs an enum
import posix

from ..errors import PyrunError
from ..oci.names import SIGNALS
from .store import PAUSED, STOPPED, Container, Store, start_time

SIGKILL = 9


def parse_signal(text: str) -> int:
    """TERM, SIGTERM, term, RTMIN+3 or a number from 0, which only asks, to 64. PyrunError otherwise."""
    name = text.upper().removeprefix("SIG")
    number = int(text) if text.isascii() and text.isdigit() else SIGNALS.get(name, -1)
    if not 0 <= number <= 64:
        raise PyrunError(f"unknown signal {text!r}", hint="a name such as TERM or SIGKILL, or a number from 0 to 64")
    return number


def kill(store: Store, container: str, signal: str = "TERM", *, everyone: bool = False) -> None:
    """pyrun kill. everyone (--all): accepted as runc accepts it; then a stopped container is no error."""
    number = parse_signal(signal)
    c = store.open(container)
    if c.status() == STOPPED:
        if everyone:
            return
        raise PyrunError("container not running", hint="it has stopped; pyrun delete removes it")
    send(c, number)


def send(c: Container, number: int) -> None:
    """The signal to the init. Without a PID namespace of its own a SIGKILL goes to the whole cgroup, or its children
    would live on."""
    from .record import SHARED_PIDNS

    if not c.record.pid:
        raise PyrunError("container not running", hint="it is still being created")
    cgroup = c.record.text("cgroup")
    if number == SIGKILL and c.record.flags & SHARED_PIDNS and cgroup and _write(cgroup + "/cgroup.kill", "1"):
        return
    try:
        fd = posix_pidfd_open(c.record.pid)
    except ProcessLookupError:
        raise PyrunError("container not running") from None
    try:
        if start_time(c.record.pid) != c.record.start:
            raise PyrunError("container not running")
        _signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        raise PyrunError("container not running") from None
    except PermissionError:
        raise PyrunError(
            f"signal {number} to pid {c.record.pid}: permission denied",
            hint="kill it as the user who made it, or as root",
        ) from None
    finally:
        posix.close(fd)
    if number == SIGKILL and cgroup and c.status() == PAUSED:
        _write(cgroup + "/cgroup.freeze", "0")


def posix_pidfd_open(pid: int) -> int:
    return posix.pidfd_open(pid)


def _write(path: str, text: str) -> bool:
    try:
        fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC)
    except OSError:
        return False
    try:
        posix.write(fd, text.encode())
        return True
    except OSError:
        return False
    finally:
        posix.close(fd)
