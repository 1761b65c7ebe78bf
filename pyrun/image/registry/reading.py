"""An answer's body, read so that it ends: in pieces that a cancel can come between, and not in drops without an end."""

from __future__ import annotations

import time
from collections.abc import Callable

import urllib3.exceptions

from pyrun.errors import Aborted, PyrunError, Unavailable
from pyrun.image.registry.transport import Response

READ_BYTES = 1 << 20
PIECE_S = 0.1
PACE_S = 300.0  # in which there must be PROGRESS_BYTES, or the connection is given up
PROGRESS_BYTES = 64 << 10  # what a connection must bring, not to count as a failed one


class Busy(Unavailable):
    """It may work later. wait: seconds that it asks for, or None."""

    def __init__(self, text: str, wait: float | None = None) -> None:
        super().__init__(text)
        self.wait = wait


class Pace:
    """Whether bytes come at all, and not in drops that only keep a connection from being silent."""

    def __init__(self, done: int) -> None:
        self._done = done
        self._end = time.monotonic() + PACE_S

    def holds(self, done: int) -> bool:
        if done - self._done >= PROGRESS_BYTES:
            self._done, self._end = done, time.monotonic() + PACE_S
        return time.monotonic() < self._end


def piece(response: Response) -> bytes:
    """What comes next: large where it comes quickly, for each piece costs the daemon's other threads their turn; and
    never later than a moment, so that a cancel is seen and what came before a cut is kept. Empty at the end."""
    parts: list[bytes] = []
    size, end = 0, time.monotonic() + PIECE_S
    while size < READ_BYTES and time.monotonic() < end:
        try:
            data = response.read1(READ_BYTES - size, decode_content=False)
        except urllib3.exceptions.HTTPError:
            if not parts:
                raise
            break  # the next one tells
        if not data:
            break
        parts.append(data)
        size += len(data)
    return b"".join(parts)


def read_all(response: Response, most: int, what: str, cancelled: Callable[[], bool]) -> bytes:
    """A short body, whole. PyrunError: it has more than `most` bytes. Busy: it comes too slowly. Aborted."""
    data, pace = bytearray(), Pace(0)
    while more := piece(response):
        data += more
        if len(data) > most:
            raise PyrunError(f"{what} of more than {most} bytes")
        if not pace.holds(len(data)):
            raise Busy(f"{what} of less than {PROGRESS_BYTES} bytes a while")
        check(cancelled)
    return bytes(data)


def check(cancelled: Callable[[], bool]) -> None:
    if cancelled():
        raise Aborted("the pull was cancelled")
