"""One kind of object, followed for as long as we live: a thread, and callbacks that it makes.

List, then watch from that moment on; when the watch ends, which it does every few minutes, go on where it ended.
Where the server no longer knows that moment (410), list anew. Where it does not answer, try again: at once to see the
end of a restart soon, then ever later, by chance so that not all of a cluster come back in one moment.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

from ..errors import PyrunError
from .client import Client, Gone, Object, Stream, TooMany

FIRST_S, MOST_S = 0.8, 30.0  # between tries: these are client-go's
CALM_S = 120.0  # after which what failed before is forgotten
WATCH_S = (300, 600)  # how long one watch is asked for
Changed = Callable[[str, Any], None]
Replaced = Callable[[list[Any]], None]


class Watch:
    """Calls, in its own thread: replaced(objects) after each list; changed(type, object) for each event after it
    (ADDED, MODIFIED, DELETED). An exception in a callback is told, and the list is made anew.

    slim: what is kept of an object, made before it is handed on. told: a line for the log when something begins to
    fail or works again.
    """

    def __init__(
        self,
        client: Client,
        where: str,
        replaced: Replaced,
        changed: Changed,
        *,
        slim: Callable[[Object], Any] = lambda one: one,
        told: Callable[[str], None] = lambda line: None,
        **query: Any,
    ) -> None:
        self.where = where
        self.error: str | None = None  # why it does not go on now
        self.lists = 0
        self.failures = 0
        self.synced = threading.Event()  # set with the first list
        self._client = client
        self._replaced = replaced
        self._changed = changed
        self._slim = slim
        self._told = told
        self._query = query
        self._version = ""
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._stream: Stream | None = None
        self._thread = threading.Thread(target=self._run, name=f"watch {where}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, patience_s: float = 10.0) -> None:
        """Returns when no callback will be made any more, or after so long."""
        self._stop.set()
        with self._lock:
            if self._stream is not None:
                self._stream.close()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(patience_s)

    # --- the thread ---

    def _run(self) -> None:
        delay = FIRST_S
        while not self._stop.is_set():
            begun = time.monotonic()
            try:
                if not self._version:
                    self._list()
                self._follow()
                delay = FIRST_S
                continue
            except Gone as error:
                self._version = ""
                if self.error is None:  # the server has forgotten: no fault. Twice in a row, wait
                    self.error = error.text
                    continue
                self._failed(error)
            except PyrunError as error:
                self._failed(error)
                if isinstance(error, TooMany):
                    delay = max(delay, error.after_s)
            except Exception as error:  # of a callback or of an object that no server should send
                self._version = ""
                self._failed(PyrunError(f"{type(error).__name__}: {error}"))
            if time.monotonic() - begun > CALM_S:
                delay = FIRST_S
            self._stop.wait(delay * random.uniform(0.5, 1.5))
            delay = min(delay * 2, MOST_S)

    def _failed(self, error: PyrunError) -> None:
        self.failures += 1
        if self.error != error.text:
            self._told(f"{self.where}: {error.text}")
        self.error = error.text

    def _works(self) -> None:
        if self.error is not None:
            self.error = None
            self._told(f"{self.where}: goes on")

    def _list(self) -> None:
        found, version = self._client.list(self.where, self._slim, **self._query)
        if self._stop.is_set():
            return
        self.lists += 1
        self._replaced(found)
        self._version = version
        self.synced.set()
        self._works()

    def _follow(self) -> None:
        """One watch, from where the last one ended to its end."""
        stream = self._client.open_watch(self.where, self._version, random.randint(*WATCH_S), **self._query)
        with self._lock:
            self._stream = stream
        try:
            if self._stop.is_set():
                stream.close()
            self._works()
            for kind, value in stream:
                version = value["metadata"]["resourceVersion"]
                if kind != "BOOKMARK" and not self._stop.is_set():
                    self._changed(kind, self._slim(value))
                self._version = version
        finally:
            with self._lock:
                self._stream = None
