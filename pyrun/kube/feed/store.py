"""The objects that there are now, from all sources together, and which of them have changed since somebody looked.

Sources write from threads of their own; one reader waits on a descriptor. An object of two sources (a Service in two
files) is the first one's by the sources' names, and the second is a fault that says so.
"""

from __future__ import annotations

import marshal
import os
import threading
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

Key = tuple[str, str, str]  # kind, namespace ("" for what has none), name
PLAIN = 2  # marshal's version in which equal values are equal bytes
NO_NAMESPACE = frozenset({"Node", "Namespace", "ServiceCIDR"})


class Held(Protocol):
    """What is known of an object: a Document of a file, or Told by a server."""

    @property
    def value(self) -> Mapping[str, Any]: ...

    def place(self, pointer: str = "") -> str:
        """Where that part of it stands, for people."""
        ...


class Told(NamedTuple):
    """An object that is in no file."""

    value: Mapping[str, Any]
    name: str  # of the source

    def place(self, pointer: str = "") -> str:
        kind, namespace, name = key_of(self.value)
        return f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"


class Packed:
    """As Told, for objects of which there are very many, each read once for each change: kept packed, which takes
    a sixth of the memory, and made anew each time that `value` is asked for."""

    __slots__ = ("_key", "_packed", "name")

    def __init__(self, value: Mapping[str, Any], name: str) -> None:
        self._key = key_of(value)
        self._packed = zlib.compress(marshal.dumps(dict(value), PLAIN), 1)  # a third of what JSON takes of time
        self.name = name

    @property
    def key(self) -> Key:
        return self._key

    @property
    def value(self) -> Mapping[str, Any]:
        value: dict[str, Any] = marshal.loads(zlib.decompress(self._packed))
        return value

    def place(self, pointer: str = "") -> str:
        kind, namespace, name = self._key
        return f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"

    def says_as(self, other: object) -> bool:
        return isinstance(other, Packed) and other._packed == self._packed and other.name == self.name


class Fault(NamedTuple):
    """Something that a source has and that is not taken. place: the file, line and column, or the object."""

    place: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


def key_of(value: Mapping[str, Any]) -> Key:
    """ValueError where it has no kind or name."""
    meta = value.get("metadata")
    kind, name = value.get("kind"), meta.get("name") if isinstance(meta, dict) else None
    if not isinstance(kind, str) or not kind:
        raise ValueError("it has no kind")
    if not isinstance(name, str) or not name or not isinstance(meta, dict):
        raise ValueError("it has no metadata.name")
    namespace = "" if kind in NO_NAMESPACE else meta.get("namespace") or "default"
    if not isinstance(namespace, str):
        raise ValueError("metadata.namespace is no string")
    return kind, namespace, name


def _same(old: Held, new: Held) -> bool:
    if isinstance(old, Packed) and old.says_as(new):
        return True
    return old.value == new.value and old.place() == new.place()


class Store:
    """fileno(): readable while something has changed that changes() has not told yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sources: dict[str, dict[Key, Held]] = {}
        self._owners: dict[Key, tuple[str, ...]] = {}  # sources that have it, in order
        self._alone: dict[str, tuple[str, ...]] = {}  # of each source what an object has that is its alone: one value
        self._changed: set[Key] = set()
        self._faults: dict[str, tuple[Fault, ...]] = {}
        self._unsynced: set[str] = set()
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    # --- for sources ---

    def expect(self, source: str) -> None:
        """Nothing is whole until this source has told of itself."""
        with self._lock:
            self._unsynced.add(source)

    def replace(self, source: str, objects: Mapping[Key, Held], faults: Iterable[Fault] = ()) -> None:
        """All that this source has."""
        with self._lock:
            mine = self._sources.setdefault(source, {})
            for key in mine.keys() - objects.keys():
                self._remove(source, mine, key)
            for key, held in objects.items():
                old = mine.get(key)
                if old is None or not _same(old, held):
                    self._put(source, mine, key, held)
            self._faults[source] = tuple(faults)
            if not mine:
                del self._sources[source]
            self._unsynced.discard(source)
            self._wake()

    def put(self, source: str, held: Held) -> None:
        with self._lock:
            key = held.key if isinstance(held, Packed) else key_of(held.value)
            self._put(source, self._sources.setdefault(source, {}), key, held)
            self._wake()

    def remove(self, source: str, key: Key) -> None:
        with self._lock:
            mine = self._sources.get(source, {})
            if key in mine:
                self._remove(source, mine, key)
                self._wake()

    def set_faults(self, source: str, faults: Iterable[Fault]) -> None:
        with self._lock:
            self._faults[source] = tuple(faults)
            self._wake()

    def _put(self, source: str, mine: dict[Key, Held], key: Key, held: Held) -> None:
        if key not in mine:
            others = self._owners.get(key)
            alone = self._alone.setdefault(source, (source,))
            self._owners[key] = tuple(sorted((*others, source))) if others else alone
        mine[key] = held
        if self._owners[key][0] == source:
            self._changed.add(key)

    def _remove(self, source: str, mine: dict[Key, Held], key: Key) -> None:
        del mine[key]
        owners = self._owners[key]
        if owners[0] == source:
            self._changed.add(key)
        left = tuple([other for other in owners if other != source])
        if left:
            self._owners[key] = left
        else:
            del self._owners[key]

    def _wake(self) -> None:
        os.eventfd_write(self._event, 1)

    # --- for the reader ---

    def fileno(self) -> int:
        return self._event

    def changes(self) -> dict[Key, Held | None]:
        """What has changed since the last call, as it is now; None: it is gone."""
        with self._lock:
            try:
                os.eventfd_read(self._event)
            except BlockingIOError:
                pass
            changed, self._changed = self._changed, set()
            return {key: self._get(key) for key in changed}

    def get(self, key: Key) -> Held | None:
        with self._lock:
            return self._get(key)

    def _get(self, key: Key) -> Held | None:
        owners = self._owners.get(key)
        return self._sources[owners[0]][key] if owners else None

    def all(self, *kinds: str) -> dict[Key, Held]:
        with self._lock:
            return {key: self._sources[owners[0]][key] for key, owners in self._owners.items() if key[0] in kinds}

    def faults(self) -> list[Fault]:
        """Of all sources, and objects that two of them have."""
        with self._lock:
            found = [fault for source in sorted(self._faults) for fault in self._faults[source]]
            for key, (first, *others) in self._owners.items():
                winner = self._sources[first][key].place()
                found += [Fault(self._sources[other][key].place(), f"it is in {winner} too") for other in others]
            return found

    def is_whole(self) -> bool:
        """Every source has told of itself once."""
        with self._lock:
            return not self._unsynced

    def waits_for(self) -> list[str]:
        with self._lock:
            return sorted(self._unsynced)

    def close(self) -> None:
        os.close(self._event)
