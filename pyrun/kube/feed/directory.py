"""A directory of YAML and JSON files, followed: what they say now, and of one that is broken what it said last.

A file is read when it has been closed or moved into place, and the directory has been still for a moment, so that an
editor's or a ConfigMap volume's steps are one change. Looked at is NAME.yaml, NAME.yml and NAME.json that begin with
neither a dot nor a #; so what editors and downloads leave beside (.web.yaml.swp, web.yaml~, web.yaml.partial) is not.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ... import inotify
from ...errors import PyrunError, reason
from .. import manifest
from .store import Fault, Held, Key, Store, key_of

ENDINGS = (".yaml", ".yml", ".json")
STILL_S, LATEST_S = 0.03, 0.5  # without an event; after the first one
AGAIN_S = 1.0  # a directory that is not there is looked for so often
Mark = tuple[int, int, int, int]


@dataclass(slots=True)
class _File:
    mark: Mark
    good: bool = False  # it has been read without a fault once


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
        self._files: dict[str, _File] = {}
        self._missing: str | None = None  # why the directory can't be read
        self._watch = inotify.Watch()
        self._wd = -1
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
        self._watch.close()
        os.close(self._stop)

    def _run(self) -> None:
        while self._await_still():
            try:
                self.look()
            except Exception as error:  # of an object that nobody has thought of: the others go on
                self._told(f"{self.path}: {type(error).__name__}: {error}")

    def _await_still(self) -> bool:
        """Comes back when something has happened and nothing does any more; False: the end."""
        patience: float | None = AGAIN_S if self._wd < 0 else None
        latest = None
        while True:
            ready, _, _ = select.select([self._stop, self._watch.fileno()], [], [], patience)
            if self._stop in ready:
                return False
            if not ready:
                return True
            for event in self._watch.read():
                if event.mask & (inotify.DELETE_SELF | inotify.MOVE_SELF | inotify.UNMOUNT | inotify.IGNORED):
                    if event.wd == self._wd:
                        self._wd = -1
            now = time.monotonic()
            latest = latest or now + LATEST_S
            patience = max(0.0, min(STILL_S, latest - now))

    # --- reading ---

    def look(self) -> None:
        """Reads what has changed by inode, size and times."""
        try:
            if self._wd < 0:
                self._wd = self._watch.add(self.path, inotify.CHANGES | inotify.ONLYDIR)
            names = sorted(name for name in os.listdir(self.path) if is_ours(name))
        except (OSError, PyrunError) as error:
            self._lost(error.text if isinstance(error, PyrunError) else f"{self.path}: {reason(error)}")
            return
        if self._missing is not None:
            self._missing = None
            self._told(f"{self.path}: is there again")
        for name in self._files.keys() - set(names):
            del self._files[name]
            self._store.replace(os.path.join(self.path, name), {})
        for name in names:
            self._look_at(name)
        self._store.replace(self.path, {})  # no fault, and it has told of itself

    def _lost(self, text: str) -> None:
        """The directory can't be read: what was in it stays. One that is not there yet is a fault, and not an end."""
        if self._missing != text:
            self._missing = text
            self._told(f"{text}; what was in it stays")
        self._store.set_faults(self.path, [Fault(self.path, text.removeprefix(f"{self.path}: "))])

    def _look_at(self, name: str) -> None:
        path = os.path.join(self.path, name)
        try:
            at = os.stat(path)
        except OSError:
            return  # it is just being moved; an event follows
        mark = (at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns)
        file = self._files.get(name)
        if file is not None and file.mark == mark:
            return
        file = self._files.setdefault(name, _File(mark))
        file.mark = mark
        objects, faults = read(path, self._kinds, self._fill)
        for fault in faults:
            self._told(str(fault) + ("; what it said before stays" if file.good else ""))
        if faults and file.good:
            self._store.set_faults(path, faults)
            return
        file.good = not faults
        self._store.replace(path, objects, faults)


def is_ours(name: str) -> bool:
    """Whether a file of this name is read."""
    return name.endswith(ENDINGS) and name[0] not in ".#"


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
