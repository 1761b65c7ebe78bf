"""Sends what the store keeps to another one by remote write, at least once, in a thread of its own. The store is the
queue: how far it is sent is in a file beside it, written after the samples before it were taken."""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from contextlib import suppress

from ..errors import PyrunError
from ..logs.ship.http import Sender
from ..logs.ship.record import Again, Refused
from .block import SECOND
from .past import read_all
from .remote import HEADERS, encode_write, plan_parts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .remote import Columns
    from .samples import Series

SENT = "remote-write.sent"
# What is read at once, of time; and sent at once, in samples.
WINDOW = 300 * SECOND
MOST_SAMPLES = 5000
# After this long a reading is in the store.
SETTLED = 120 * SECOND
WAIT_FIRST_S, WAIT_MOST_S = 0.5, 60.0


class RemoteWriter:
    """directory: the store's. node: a label of each series. period: seconds between two looks."""

    def __init__(self, url: str, directory: str, node: str, period: float, keep_seconds: int) -> None:
        self.samples = self.dropped = self.failures = self._last = 0
        self._told = ""
        self._sender = Sender(url)
        self._directory = directory
        self._node = node
        self._period = period
        self._keep = keep_seconds * SECOND
        self._ended = threading.Event()
        self._last = self._sent()
        self._thread = threading.Thread(target=self._run, name="remote-write", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, patience: float = 5.0) -> None:
        """What is under way is left after this many seconds; it will be sent again."""
        self._ended.set()
        self._thread.join(patience)

    def _run(self) -> None:
        try:
            while not self._ended.is_set():
                try:
                    if not self._send_next():
                        self._ended.wait(self._period)
                except Exception as error:  # whatever it was: a thread that ends sends nothing any more
                    self.failures += 1
                    self._tell(error)
                    self._ended.wait(self._period)
        finally:
            self._sender.close()

    def _tell(self, error: Exception) -> None:
        """On standard error, once for each text."""
        text = str(error) if isinstance(error, PyrunError | OSError) else f"{type(error).__name__}: {error}"
        if text != self._told:
            self._told = text
            with suppress(OSError):
                sys.stderr.write(f"pyrun: metrics: remote write: {text}; it goes on where it was\n")

    def _send_next(self) -> bool:
        """Sends the next window; whether another one may follow at once."""
        now = int(time.time() * SECOND)
        since = max(self._last, now - self._keep)
        until = min(since + WINDOW, now)
        found = read_all(self._directory, since + 1, until)
        for part in plan_parts(found, MOST_SAMPLES):
            if part and not self._deliver(part):
                return False
        # Of the present a reading may still be on its way into the store.
        newest = max((columns[0][-1] for columns in found.values()), default=since)
        sent = until if until < now - SETTLED else newest
        if sent == self._last:
            return False
        self._remember(sent)
        return until < now

    def _deliver(self, part: Mapping[Series, Columns]) -> bool:
        """Until it is taken, or refused for good; False: it has been ended meanwhile."""
        body, count = encode_write(part, self._node), sum(len(columns[0]) for columns in part.values())
        wait = WAIT_FIRST_S
        while not self._ended.is_set():
            try:
                self._sender.post(body, HEADERS, count)
            except Refused:
                self.dropped += count
                return True
            except Again as again:
                self.failures += 1
                self._ended.wait(min(WAIT_MOST_S, max(wait, again.wait or 0) * random.uniform(0.8, 1.2)))
                wait = min(WAIT_MOST_S, wait * 2)
            else:
                self.samples += count
                return True
        return False

    def _sent(self) -> int:
        """Hundredths of seconds since 1970; now, at the first time or where the file says nothing."""
        with suppress(OSError, ValueError), open(os.path.join(self._directory, SENT)) as file:
            return int(file.read())
        now = int(time.time() * SECOND)
        with suppress(OSError):  # a full disk: it is written when something was sent
            self._remember(now)
        return now

    def _remember(self, sent: int) -> None:
        self._last = sent
        path = os.path.join(self._directory, SENT)
        with open(f"{path}.new", "w") as file:
            file.write(f"{sent}\n")
            file.flush()
            os.fsync(file.fileno())
        os.rename(f"{path}.new", path)
