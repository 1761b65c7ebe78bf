"""What a container has written: the bytes and inodes of its writable layer, counted by a walk.

The tree is the container's to change while we walk, so no path is followed by string, and depth, entries and time have
bounds; what is beyond them is not known, rather than half of it told. One thread walks for the whole node, one tree at
a time, and each tree at most every EVERY_S: walks of each layer every ten seconds are what people complain of.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

EVERY_S = 30.0
REST = 20  # times as long as the walk took
ENTRIES = 2_000_000
DEPTH = 256  # a descriptor each
WALK_S = 60.0
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Written:
    """time: in ns since 1970. Bytes as `du` counts them, with the top directory."""

    time: int
    bytes: int
    inodes: int


def walk(path: str, *, entries: int = ENTRIES, depth: int = DEPTH, seconds: float = WALK_S) -> Written | None:
    """None where it is not there, or beyond a bound. It stays on the file system of its top."""
    end = time.monotonic() + seconds
    try:
        top = os.open(path, _DIRECTORY)
    except OSError:
        return None
    stack: list[tuple[int, list[str]]] = [(top, [])]
    seen: set[int] = set()  # inodes with more than one name
    try:
        own = os.fstat(top)
        total, inodes = own.st_blocks * 512, 1
        stack[0][1].extend(os.listdir(top))
        while stack:
            fd, names = stack[-1]
            if not names:
                os.close(fd)
                stack.pop()
                continue
            if inodes > entries or time.monotonic() > end:
                return None
            name = names.pop()
            try:
                found = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except OSError:
                continue
            if found.st_dev != own.st_dev or found.st_ino in seen:
                continue
            directory = stat.S_ISDIR(found.st_mode)
            if found.st_nlink > 1 and not directory:
                seen.add(found.st_ino)
            total, inodes = total + found.st_blocks * 512, inodes + 1
            if directory:
                if len(stack) >= depth:
                    return None
                _enter(stack, fd, name)
        return Written(time.time_ns(), total, inodes)
    except OSError:
        return None
    finally:
        for fd, _ in stack:
            os.close(fd)


def _enter(stack: list[tuple[int, list[str]]], fd: int, name: str) -> None:
    """One that was removed or replaced meanwhile has nothing to be counted."""
    try:
        child = os.open(name, _DIRECTORY, dir_fd=fd)
    except OSError:
        return
    stack.append((child, []))
    stack[-1][1].extend(os.listdir(child))


@dataclass(slots=True)
class _Known:
    written: Written | None = None
    next: float = 0.0  # on the monotonic clock
    asked: bool = False
    walked: bool = False


class Walker:
    """Thread-safe. What is known is answered at once; who asks for what is not is told when it is (wait())."""

    def __init__(self, every_s: float = EVERY_S) -> None:
        self._every_s = every_s
        self._changed = threading.Condition()
        self._known: dict[str, _Known] = {}
        self._queue: deque[tuple[str, str]] = deque()
        self._runs = False

    def ask(self, key: str, path: str) -> Written | None:
        """What was last found; it is looked at again when that is old."""
        with self._changed:
            known = self._known.setdefault(key, _Known())
            if not known.asked and time.monotonic() >= known.next:
                known.asked = True
                self._queue.append((key, path))
                if not self._runs:
                    self._runs = True
                    threading.Thread(target=self._work, name="walker", daemon=True).start()
            return known.written

    def wait(self, keys: Collection[str], seconds: float) -> None:
        """Until all of these were walked once, or the time is over."""
        with self._changed:
            self._changed.wait_for(
                lambda: all(known.walked for key in keys if (known := self._known.get(key)) is not None), seconds
            )

    def keep(self, keys: Collection[str]) -> None:
        """Forgets all others."""
        with self._changed:
            for key in self._known.keys() - set(keys):
                del self._known[key]

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._queue:
                    self._runs = False
                    return
                key, path = self._queue.popleft()
                if key not in self._known:
                    continue
            begun = time.monotonic()
            written = walk(path)
            now = time.monotonic()
            with self._changed:
                known = self._known.get(key)
                if known is not None:
                    known.written, known.walked, known.asked = written, True, False
                    known.next = now + max(self._every_s, REST * (now - begun))
                self._changed.notify_all()
