"""A stream as both ends of the house see it: bytes each way, each way ended for itself, whatever carries it.

What has arrived and is not read yet lies in an `Inbox`. The carrier reads on from its peer only while no inbox is
full, so memory is bounded and a slow reader slows its peer."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from pyrun.errors import PyrunError

FULL = 256 * 1024  # bytes that an inbox keeps before its carrier stops reading
LOOK_S = 1.0  # how often a carrier that does not read looks whether its peer is still there


class StreamReset(PyrunError):
    """The stream, or what carries it, was ended by one side before its data came to an end."""


class Stream(Protocol):
    async def read(self) -> bytes:
        """Some bytes; none at the end. Raises StreamReset."""
        ...

    async def write(self, data: bytes) -> None:
        """Comes back when the peer's side has room. Raises StreamReset."""
        ...

    async def close(self) -> None:
        """No more of ours comes; the other way goes on. Never raises."""
        ...

    def drop(self) -> None:
        """Nobody will read: what is here and what comes is thrown away."""
        ...

    async def reset(self) -> None:
        """Ends both ways. Never raises."""
        ...


class Room:
    """Whether a carrier may read on: while none of its inboxes is full."""

    def __init__(self) -> None:
        self._full: set[Inbox] = set()
        self._event = asyncio.Event()
        self._event.set()

    def mark(self, inbox: Inbox, full: bool) -> None:
        if full:
            self._full.add(inbox)
            self._event.clear()
        else:
            self._full.discard(inbox)
            if not self._full:
                self._event.set()

    def free(self) -> bool:
        return not self._full

    async def wait(self) -> None:
        """Until there is room, or LOOK_S have passed."""
        try:
            await asyncio.wait_for(self._event.wait(), LOOK_S)
        except TimeoutError:
            pass


class Inbox:
    """What one stream has received. One reader at a time."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._why: str | None = None
        self._dropping = False
        self._event = asyncio.Event()

    def put(self, data: bytes) -> None:
        if self._ended or self._dropping or not data:
            return
        self._chunks.append(data)
        self._size += len(data)
        self._event.set()
        if self._size > FULL:
            self._room.mark(self, True)

    def end(self, why: str | None = None) -> None:
        """No more comes. why: it is an error, which the reader learns after what was received before."""
        if not self._ended:
            self._ended, self._why = True, why
            self._event.set()

    def drop(self) -> None:
        """Nobody will read: what is here and what comes is thrown away."""
        self._dropping = True
        self._chunks.clear()
        self._size = 0
        self._room.mark(self, False)

    @property
    def size(self) -> int:
        return self._size

    @property
    def ended(self) -> bool:
        return self._ended

    async def get(self) -> bytes:
        while not self._chunks:
            if self._ended:
                if self._why is not None:
                    raise StreamReset(self._why)
                return b""
            self._event.clear()
            await self._event.wait()
        data = self._chunks.popleft()
        self._size -= len(data)
        if self._size <= FULL:
            self._room.mark(self, False)
        return data
