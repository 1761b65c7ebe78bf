"""Reads what comes, from where it stopped, and sends it in batches to one target. A thread for each target: one that is
slow or gone holds up no other. The disk is the buffer, so a target that is gone for a day costs no memory."""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
from contextlib import ExitStack, suppress

from ...errors import PyrunError
from ..follow import Cursor, Follower
from ..query import Query, Where
from ..store import DATABASE
from . import elasticsearch, loki, otlp
from .cursors import Cursors, key_of
from .gathered import Gathered
from .http import HttpTarget
from .journald import JournaldTarget
from .record import Again, Record, Refused, parse_target
from .syslog import SyslogTarget

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Protocol

    from ..entry import Rule
    from ..follow import Position
    from ..tree import Container
    from .cursors import Key

    class Target(Protocol):
        """send: returns when they were taken, or raises Again or Refused."""

        def send(self, records: Sequence[Record]) -> None: ...

        def close(self) -> None: ...


BATCH_BYTES = 1 << 20
# Pieces of 64 to 256 KiB of a container's log before the others have their turn.
BURST = 4
# Lines that come within this time are sent together.
GATHER_S = 0.5
WAIT_FIRST_S, WAIT_MOST_S = 0.5, 60.0
BY_HTTP = {"loki": loki, "elasticsearch": elasticsearch, "otlp": otlp}
OTHERS: Mapping[str, Callable[[str], Target]] = {"syslog": SyslogTarget, "journald": JournaldTarget}


class Shipper:
    """target: as parse_target takes it. root, directory: of the logs and the store. rule: which lines are sent as one,
    None if each is sent by itself."""

    def __init__(
        self, target: str, root: str, directory: str, warn: Callable[[str], None], rule: Rule | None = None
    ) -> None:
        protocol, url = parse_target(target)
        self._name = target
        self._target: Target = OTHERS[protocol](url) if protocol in OTHERS else HttpTarget(url, BY_HTTP[protocol])
        self._where = (root, directory)
        self._rule = rule
        self._warn = warn
        self._ended = threading.Event()
        self._node = os.uname().nodename
        self._warned = False
        self._thread = threading.Thread(target=self._run, name="ship", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, patience: float) -> None:
        """What is under way is left after this many seconds; it will be sent again."""
        self._ended.set()
        self._thread.join(patience)

    def _run(self) -> None:
        wait = WAIT_FIRST_S
        while not self._ended.is_set():
            begun = time.monotonic()
            try:
                self._follow()
            except Exception as error:  # whatever it was: a thread that ends sends nothing any more, and nobody sees it
                with suppress(OSError):
                    self._warn(f"{self._name}: {_text(error)}; it goes on where it was")
                wait = WAIT_FIRST_S if time.monotonic() - begun > WAIT_MOST_S else min(WAIT_MOST_S, wait * 2)
                self._ended.wait(wait)

    def _follow(self) -> None:
        root, directory = self._where
        with ExitStack() as stack:
            stack.callback(self._target.close)
            cursors = Cursors(os.path.join(directory, DATABASE), self._name)
            stack.callback(cursors.close)
            try:
                follower = _FromPositions(root, directory, cursors, self._rule)
                stack.callback(follower.close)
                while not self._ended.is_set():
                    if not self._ship(follower, cursors):
                        follower.wait()
                        self._ended.wait(GATHER_S)
            except Exception as error:
                with suppress(sqlite3.Error):
                    cursors.count(error=_text(error))
                raise

    def _ship(self, follower: _FromPositions, cursors: Cursors) -> int:
        """Sends what is there; how many lines that were."""
        batch: list[Record] = []
        positions: dict[Key, Position] = {}
        size = sent = 0
        for gathered in follower.gathered():
            before, container = gathered.safe, gathered.cursor.container
            for line in gathered.read(BURST):
                batch.append(Record(container, line, self._node))
                size += len(line.content) + 200
            if gathered.safe != before:
                positions[key_of(container)] = gathered.safe
            if size >= BATCH_BYTES:
                sent += self._send(batch, positions, cursors)
                batch, positions, size = [], {}, 0
        return sent + self._send(batch, positions, cursors)

    def _send(self, records: list[Record], positions: dict[Key, Position], cursors: Cursors) -> int:
        dropped = sum(self._deliver(part, cursors) for part in _parts(records)) if records else 0
        if (records or positions) and not self._ended.is_set():
            cursors.commit(positions, len(records) - dropped, dropped)
        return len(records)

    def _deliver(self, records: list[Record], cursors: Cursors) -> int:
        """Sends them until they are taken; how many are never. Not when it has been ended meanwhile."""
        wait = WAIT_FIRST_S
        while not self._ended.is_set():
            try:
                self._target.send(records)
            except Refused as refused:
                if refused.whole and len(records) > 1:  # one line may be at fault, or all are too much at once
                    half = len(records) // 2
                    return self._deliver(records[:half], cursors) + self._deliver(records[half:], cursors)
                cursors.count(error=str(refused))
                self._warn(f"{self._name}: {refused.lines} lines are refused and dropped: {refused}")
                return refused.lines
            except Again as again:
                cursors.count(error=str(again))
                if not self._warned:
                    self._warn(f"{self._name}: {again}; it is tried again until they are taken")
                self._warned = True
                self._ended.wait(min(WAIT_MOST_S, max(wait, again.wait or 0) * random.uniform(0.8, 1.2)))
                wait = min(WAIT_MOST_S, wait * 2)
            else:
                self._warned = False
                return 0
        return 0


class _FromPositions(Follower):
    """Containers are read from where an earlier shipper stopped, and new ones from their beginning."""

    def __init__(self, root: str, store: str, cursors: Cursors, rule: Rule | None) -> None:
        self._rule = rule
        self._gathered: dict[str, Gathered] = {}
        self._remembered = cursors
        self._positions = cursors.positions()
        super().__init__(root, Where(), Query(), store)

    def begin(self, container: Container, *, new: bool) -> Cursor:
        cursor = Cursor(container)
        position = self._positions.pop(key_of(container), None)
        if position is not None and not cursor.start_at(position):
            self._remembered.count(lost_files=1)
        self._gathered[container.directory] = Gathered(cursor, self._rule)
        return cursor

    def ended(self, cursor: Cursor) -> None:
        self._remembered.forget(key_of(cursor.container))
        del self._gathered[cursor.container.directory]

    def gathered(self) -> Iterator[Gathered]:
        self._find(new=True)
        yield from self._gathered.values()


def _text(error: Exception) -> str:
    return str(error) if isinstance(error, PyrunError | OSError) else f"{type(error).__name__}: {error}"


def _parts(records: list[Record]) -> Iterator[list[Record]]:
    """Of about BATCH_BYTES each, a record at least."""
    part: list[Record] = []
    size = 0
    for one in records:
        part.append(one)
        size += len(one.line.content) + 200
        if size >= BATCH_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part
