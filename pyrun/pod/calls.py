"""A call to pyrun-pod: a connection of its own, a request with descriptors, an answer; and what a refusal means.

Threads never wait for each other, and a call that is given up ends by closing it.
"""

from __future__ import annotations

import os
import select
import socket
import struct

from ..errors import FailedPrecondition, PyrunError, reason
from ..rights import receive_message, send_message
from . import messages as m

CALL_S = 10.0
GONE_HINT = "its containers' state is that of their cgroup; exits/ beside its socket has what it recorded"


class Gone(PyrunError):
    """There is no supervisor: it never was, was told to end, or was killed."""


def connect(directory: str) -> socket.socket:
    """By the directory's descriptor, as an address may be 107 bytes long at most. Gone."""
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    # Not settimeout(): a socket that does not block is refused at once where the queue is full.
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(CALL_S), 0))
    try:
        held = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            s.connect(f"/proc/self/fd/{held}/sock")
        finally:
            os.close(held)
    except BlockingIOError:
        s.close()
        raise PyrunError(
            f"the supervisor in {directory} takes no call",
            hint="is it stopped, or are there too many at a time?",
        ) from None
    except OSError as e:
        s.close()
        raise Gone(f"no supervisor in {directory}: {reason(e)}", hint=GONE_HINT) from None
    return s


def ask(directory: str, request: bytes, *fds: int) -> socket.socket:
    """A call that has been sent. Gone."""
    s = connect(directory)
    try:
        send_message(s, request, fds)
    except (BrokenPipeError, ConnectionResetError):
        s.close()
        raise Gone("the supervisor has ended", hint=GONE_HINT) from None
    except BaseException:
        s.close()
        raise
    return s


def readable(fds: list[int], timeout: float | None) -> list[int]:
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return [fd for fd, _ in poll.poll(None if timeout is None else timeout * 1000)]


def receive(s: socket.socket, flags: int = 0) -> tuple[m.Reply, list[int]]:
    """Gone at its end."""
    try:
        data, fds = receive_message(s, 16384, 4, flags)
        if data:
            return m.Reply(data), fds
    except ConnectionResetError:
        pass
    except ValueError as e:
        raise PyrunError(f"the supervisor's answer: {e}", hint="is it of another version?") from None
    raise Gone("the supervisor has ended", hint=GONE_HINT)


def answer(s: socket.socket, timeout: float) -> tuple[m.Reply, list[int]]:
    if not readable([s.fileno()], timeout):
        raise PyrunError(
            f"the supervisor has not answered in {timeout:.0f} s", hint="is it stopped, or its disk stuck?"
        )
    return receive(s)


def check(reply: m.Reply, ctr: str) -> None:
    if not reply.err:
        return
    known = {
        2: "does not know it",
        3: "it does not run",
        6: "it has no standard input to write to",
        16: "it still runs",
        17: "there is one of this name",
        25: "it has no terminal",
        87: "there are too many",
        108: "it is ending (SIGTERM: the machine or its unit is being stopped), and begins nothing new",
    }
    why = known.get(reply.err) or os.strerror(reply.err).lower()
    kind = FailedPrecondition if reply.err == 3 else PyrunError
    raise kind(f"the pod's supervisor: container {ctr or '(none)'}: {why}")
