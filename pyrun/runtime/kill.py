"""kill: a signal to the init, through a pidfd so that it can't reach another process."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` costs an enum
import posix

from ..errors import PyrunError
from ..oci.names import SIGNALS
from .cgroup import SIGKILL, kill_all, own_cgroup, write_file
from .record import SHARED_PIDNS
from .store import PAUSED, STOPPED, Container, Store, start_time

NOBODY = 2, 3, 22  # ENOENT, ESRCH, EINVAL of pidfd_open(2): the number is nobody's, or a thread's by now


def parse_signal(text: str) -> int:
    """TERM, SIGTERM, term, RTMIN+3 or a number from 0, which only asks, to 64. PyrunError otherwise."""
    name = text.upper().removeprefix("SIG")
    number = int(text) if text.isascii() and text.isdigit() else SIGNALS.get(name, -1)
    if not 0 <= number <= 64:
        raise PyrunError(f"unknown signal {text!r}", hint="a name such as TERM or SIGKILL, or a number from 0 to 64")
    return number


def kill(store: Store, container: str, signal: str = "TERM", *, everyone: bool = False) -> None:
    """pyrun kill. everyone (--all): a stopped container is no error then; and a SIGKILL is for what has outlived its
    init, where that had no PID namespace of its own to take along."""
    number = parse_signal(signal)
    c = store.open(container)
    if c.status() != STOPPED:
        send(c, number)
    elif not everyone:
        raise PyrunError("container not running", hint="it has stopped; pyrun delete removes it")
    elif number == SIGKILL:
        with own_cgroup(c.record) as cgroup:
            kill_shared(c, cgroup)


def kill_shared(c: Container, cgroup: int) -> bool:
    """Kills all in the cgroup of a container without a PID namespace of its own, whose processes may live on without
    its init. False where it has one, or no cgroup."""
    return bool(c.record.flags & SHARED_PIDNS) and cgroup >= 0 and kill_all(cgroup)


def send(c: Container, number: int) -> None:
    """The signal to the init. Without a PID namespace of its own a SIGKILL goes to the whole cgroup, or its children
    would live on."""
    if not c.record.pid:
        raise PyrunError("container not running", hint="it is still being created")
    try:
        fd = posix.pidfd_open(c.record.pid)
    except OSError as e:
        if e.errno not in NOBODY:
            raise
        raise PyrunError("container not running") from None
    try:
        if start_time(c.record.pid) != c.record.start:
            raise PyrunError("container not running")
        if number == SIGKILL:
            _kill(c, fd)
        else:
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


def _kill(c: Container, init: int) -> None:
    with own_cgroup(c.record) as cgroup:
        if kill_shared(c, cgroup):
            return
        _signal.pidfd_send_signal(init, SIGKILL)
        if cgroup >= 0 and c.status() == PAUSED:
            write_file(cgroup, "cgroup.freeze", "0")
