"""A directory of YAML and JSON files, followed: what they say now, and of one that is broken what it said last.

Which files are looked at, and when one is whole, is in looks.py: an editor's or a ConfigMap volume's steps are one
change.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from typing import Any

from ...errors import PyrunError
from .. import manifest
from .looks import LATEST_S, STILL_S, Looks
from .store import Fault, Held, Key, Store, key_of

AGAIN_S = 1.0  # a directory that is not there is looked for so often


class Directory:
    """Puts what the files say into a store, each file a source of its own by its path. kinds: those that are wanted;
    others are left out without a word. told: a line for the log for each fault, once. fill: completes an object in
    place as an API server would; its PyrunError is a fault of the object."""

    def __init__(
        self,
        path: str,
        store: Store,
        kinds: frozenset[str],
        told: Callable[[str], None] = lambda line: None,
        fill: Callable[[dict[str, Any]], None] = lambda value: None,
    ) -> None:
        self.path = os.path.abspath(path)
        self._store = store
        self._kinds = kinds
        self._told = told
        self._fill = fill
        self._good: dict[str, bool] = {}  # path → whether it has been read without a fault once
        self._missing: str | None = None  # why the directory can't be read
        self._looks = Looks(self.path)
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name=f"files {self.path}", daemon=True)
        store.expect(self.path)

    def start(self) -> None:
        """Reads all of it now, and follows it in a thread."""
        self.look()
        self._thread.start()

    def stop(self) -> None:
        os.eventfd_write(self._stop, 1)
        if self._thread.is_alive():
            self._thread.join(10)
        self._looks.close()
        os.close(self._stop)

    def _run(self) -> None:
        while self._await_still():
            try:
                self.look()
            except Exception as error:  # of an object that nobody has thought of: the others go on
                self._told(f"{self.path}: {type(error).__name__}: {error}")

    def _await_still(self) -> bool:
        """Comes back when something has happened and nothing does any more; False: the end."""
        patience: float | None = AGAIN_S if self._looks.lost else None
        latest = None
        while True:
            ready, _, _ = select.select([self._stop, self._looks.fileno()], [], [], patience)
            if self._stop in ready:
                return False
            if not ready:
                return True
            self._looks.stir()
            now = time.monotonic()
            latest = latest or now + LATEST_S
            patience = max(0.0, min(STILL_S, latest - now))

    # --- reading ---

    def look(self) -> None:
        """Reads what has changed."""
        try:
            gone, changed = self._looks.look()
        except PyrunError as error:
            self._lost(error.text)
            return
        if self._missing is not None:
            self._missing = None
            self._told(f"{self.path}: is there again")
        for path in gone:
            self._good.pop(path, None)
            self._store.replace(path, {})
        for path in changed:
            self._read(path)
        self._store.replace(self.path, {})  # no fault, and it has told of itself

    def _lost(self, text: str) -> None:
        """The directory can't be read: what was in it stays. One that is not there yet is a fault, and not an end."""
        if self._missing != text:
            self._missing = text
            self._told(f"{text}; what was in it stays")
        self._store.set_faults(self.path, [Fault(self.path, text.removeprefix(f"{self.path}: "))])

    def _read(self, path: str) -> None:
        good = self._good.get(path, False)
        objects, faults = read(path, self._kinds, self._fill)
        for fault in faults:
            self._told(str(fault) + ("; what it said before stays" if good else ""))
        if faults and good:
            self._store.set_faults(path, faults)
            return
        self._good[path] = not faults
        self._store.replace(path, objects, faults)


def read(
    path: str, kinds: frozenset[str], fill: Callable[[dict[str, Any]], None] = lambda value: None
) -> tuple[dict[Key, Held], list[Fault]]:
    """What is right in a file, and what is not."""
    objects: dict[Key, Held] = {}
    try:
        documents, errors = manifest.scan(path)
    except PyrunError as error:
        return {}, [Fault(path, error.text.removeprefix(f"read {path}: "))]
    faults = [Fault(f"{error.name}:{error.position[0]}:{error.position[1]}", error.what) for error in errors]
    for document in documents:
        place = ":".join(map(str, (document.name, *document.line())))
        try:
            key = key_of(document.value)
        except ValueError as error:
            faults.append(Fault(place, str(error)))
            continue
        if key[0] not in kinds:
            continue
        if key in objects:
            faults.append(Fault(place, f"{key[0]} {key[1]}/{key[2]} is in this file twice"))
        else:
            try:
                fill(document.value)
            except PyrunError as error:
                faults.append(Fault(place, error.text))
            else:
                objects[key] = document
    return objects, faults
