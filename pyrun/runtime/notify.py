"""Hands on what a container says on its $NOTIFY_SOCKET: that it is ready, and nothing else.

Only a line READY=… goes to the service manager, then MAINPID= with a pid that we know, and then a barrier, so that the
manager has taken both in before we go on or end (sd_notify(3), BARRIER=1). A manager that does not answer the barrier
costs at most BARRIER_MS.
"""

from __future__ import annotations

import _socket
import posix
import select

from ..errors import PyrunError
from ..executor import Outcome
from ..plan.rootfs.notify import SLOT
from .sockets import connect

BARRIER_MS = 30_000
LARGEST = 4096


def socket_of(outcome: Outcome) -> int:
    """The descriptor of the container's socket; -1 without one. It is closed with the outcome."""
    slots = outcome.plan.slots
    return outcome.slot(slots.index(SLOT)) if SLOT in slots else -1


def wait_until_ready(fd: int, pid: int, manager: bytes, cancel: int = -1) -> None:
    """Until the program says that it is ready, or its process pid has ended. Not at all if no manager would hear.

    manager: its address, as $NOTIFY_SOCKET has it. cancel: readable when the caller gives up; PyrunError then."""
    if not _listens(manager):
        return
    try:
        pidfd = posix.pidfd_open(pid)
    except ProcessLookupError:
        return
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    if cancel >= 0:
        poll.register(cancel, select.POLLIN)
    try:
        while True:
            events = dict(poll.poll())
            if cancel in events:
                raise PyrunError("interrupted before the program was ready", hint="it runs; pyrun kill ends it")
            if fd in events and hand_on(fd, pid, manager):
                return
            if fd not in events:
                return
    finally:
        posix.close(pidfd)


def hand_on(fd: int, pid: int, manager: bytes) -> bool:
    """Reads one message. Whether it was that of readiness; then the manager has been told, with pid as the main one."""
    try:
        message = posix.read(fd, LARGEST)
    except OSError:
        return False
    ready = next((line for line in message.split(b"\n") if line.startswith(b"READY=")), None)
    if ready is None:
        return False
    try:
        _tell(manager, ready, pid)
    except OSError:  # it is gone, and the container is not the worse for it
        pass
    return True


def _connect(address: bytes) -> _socket.socket:
    """To the service manager. OSError where it is gone."""
    address = b"\0" + address[1:] if address.startswith(b"@") else address
    sender = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        connect(sender, address)
    except OSError:
        sender.close()
        raise
    return sender


def _listens(manager: bytes) -> bool:
    try:
        _connect(manager).close()
    except OSError:
        return False
    return True


def _tell(manager: bytes, ready: bytes, pid: int) -> None:
    sender = _connect(manager)
    try:
        sender.send(ready + b"\n")
        sender.send(b"MAINPID=%d\n" % pid)
        reader, writer = posix.pipe2(posix.O_CLOEXEC)
        try:
            try:
                rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, writer.to_bytes(4, "little"))
                sender.sendmsg([b"BARRIER=1"], [rights])
            finally:
                posix.close(writer)
            poll = select.poll()
            poll.register(reader, select.POLLIN)
            poll.poll(BARRIER_MS)
        finally:
            posix.close(reader)
    finally:
        sender.close()
