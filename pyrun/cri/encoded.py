"""Lists as bytes: each item is encoded when it has changed, and a list is its items' bytes one after the other.

A kubelet lists all pods and containers each second, and nothing of most of them has changed. Every list of the CRI, and
every message of its streams, has the items as field 1; that is all that this relies on, and a test looks.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

from ..protowire import varint

TAG = b"\x0a"  # field 1, with a length
LARGEST = 1 << 20  # of a stream's message, a little more at most


class Encoded:
    """make: what an item is made of, given the pod or container. version: changes when what make() gives does."""

    def __init__(self, make: Callable[[Any], Any], version: Callable[[Any], Hashable]) -> None:
        self._make, self._version = make, version
        self._kept: WeakKeyDictionary[Any, tuple[Hashable, bytes]] = WeakKeyDictionary()

    def item(self, of: Any) -> bytes:
        """The item as field 1 of a message."""
        version = self._version(of)
        kept = self._kept.get(of)
        if kept is None or kept[0] != version:
            data = self._make(of).SerializeToString()
            kept = self._kept[of] = version, TAG + varint(len(data)) + data
        return kept[1]

    def list(self, all: Iterable[Any]) -> bytes:
        """A response with all of them."""
        return b"".join([self.item(one) for one in all])


def chunks(items: Iterable[bytes]) -> Iterator[bytes]:
    """A stream's messages: many items in each, so that a node's pods do not take as many messages."""
    held: list[bytes] = []
    size = 0
    for item in items:
        held.append(item)
        size += len(item)
        if size >= LARGEST:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)
