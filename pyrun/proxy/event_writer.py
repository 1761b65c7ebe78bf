"""A thread that writes what stands of events.py to the API server, and holds nobody up where that does not answer."""

from __future__ import annotations

import datetime
import threading
import time

from ..errors import AlreadyExists, DeadlineExceeded, PyrunError, Unavailable
from ..kube.client import Client, Forbidden, TooMany, path
from .events import VERSION, Notice, Schedule, event_object

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..kube.feed.store import Key

LATER_S = 30.0  # where the server does not answer
STOP_S = 1.0
MAY_NOT = "Events of Services are not written, which takes the right to create events of events.k8s.io"


class EventWriter:
    """uid_of: of an object that the server has; "" of any other, which is then not told of. told: a line for the
    log."""

    def __init__(self, client: Client, node: str, uid_of: Callable[[Key], str], told: Callable[[str], None]) -> None:
        self.written = self.refused = 0
        self._client, self._node, self._uid_of, self._told = client, node, uid_of, told
        self._schedule = Schedule()
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """What is under way may still be: nothing waits for it."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(STOP_S)
        self._client.close()

    def set(self, some: Iterable[Notice]) -> None:
        """These stand now, and no others."""
        with self._changed:
            self._schedule.set(some, time.monotonic())
            self._changed.notify()

    def _run(self) -> None:
        while (one := self._take()) is not None:
            try:
                uid = self._uid_of(one.about)
                if uid:
                    self._write(one, uid)
            except Exception as error:  # a bug over one object is no reason to say nothing of the others
                text = f"internal error: {type(error).__name__}: {error}"
                self._told(f"an Event of {' '.join(one.about)} is not written: {text}")

    def _take(self) -> Notice | None:
        """The next one, when it is due; None: the end."""
        with self._changed:
            while not self._ended:
                found = self._schedule.next(time.monotonic())
                if isinstance(found, Notice):
                    return found
                self._changed.wait(found)
        return None

    def _write(self, one: Notice, uid: str) -> None:
        value = event_object(one, uid, self._node, datetime.datetime.now(datetime.UTC))
        try:
            self._client.create(path(VERSION, "events", one.about[1]), value)
            self.written += 1
        except AlreadyExists:
            pass  # another node has said it, or we have, before we were started again
        except (Unavailable, DeadlineExceeded) as error:
            wait = max(LATER_S, error.after_s) if isinstance(error, TooMany) else LATER_S
            with self._changed:
                self._schedule.again(one, time.monotonic() + wait)
        except Forbidden as error:  # or the namespace ends
            if not self.refused:
                self._told(f"{MAY_NOT}: {error.text}")
            self.refused += 1
        except PyrunError as error:
            self._told(f"an Event of {' '.join(one.about)} is not taken: {error.text}")
