"""Bytes to and from a peer: a TCP connection here, a WebSocket that carries another protocol in websocket.py.

Every peer is watched: one that neither sends nor takes a byte for `idle` seconds is cut off, and while nobody reads,
the socket is asked whether the peer has gone."""

from __future__ import annotations

import asyncio
import select
from typing import Protocol

from pyrun.http.streams import StreamReset

CHUNK = 64 * 1024
IDLE_S = 4 * 3600.0  # as the kubelet's streamingConnectionIdleTimeout


class Transport(Protocol):
    async def read(self) -> bytes:
        """Some bytes; none when the peer has gone, orderly or not."""
        ...

    async def write(self, data: bytes) -> None:
        """Comes back when there is room again. Raises StreamReset."""
        ...

    def gone(self) -> bool:
        """Whether the peer has hung up, which read() may not have got to yet."""
        ...

    async def close(self, linger: float) -> None:
        """All that was written is sent; the peer has `linger` seconds to take it and to hang up."""
        ...


class SocketTransport:
    """A connection that has left HTTP behind. early: what was read of it too far."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, early: bytes, idle: float) -> None:
        self._reader = reader
        self._writer = writer
        self._early = early
        self._idle = idle
        self._lock = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self._timer = self._loop.call_later(idle, self._look)

    def _look(self) -> None:
        left = self._last + self._idle - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self.abort()

    async def read(self) -> bytes:
        if self._early:
            data, self._early = self._early, b""
            return data
        try:
            data = await self._reader.read(CHUNK)
        except OSError:
            return b""
        self._last = self._loop.time()
        return data

    async def write(self, data: bytes) -> None:
        async with self._lock:
            try:
                self._writer.write(data)
                await self._writer.drain()
            except OSError as error:
                raise StreamReset(f"the peer has gone: {error}")
        self._last = self._loop.time()

    def gone(self) -> bool:
        socket = self._writer.get_extra_info("socket")
        if self._writer.is_closing() or socket is None or socket.fileno() < 0:
            return True
        poll = select.poll()
        poll.register(socket.fileno(), select.POLLRDHUP)
        return bool(poll.poll(0))

    def abort(self) -> None:
        self._writer.transport.abort()

    async def close(self, linger: float) -> None:
        """A close with unread bytes makes the kernel send a reset, which takes from the peer what it has not read yet:
        so we read until the peer hangs up."""
        try:
            async with asyncio.timeout(linger):
                await self._writer.drain()
                if self._writer.can_write_eof():
                    self._writer.write_eof()
                while await self._reader.read(CHUNK):
                    pass
        except (OSError, TimeoutError):
            pass
        finally:
            self._timer.cancel()
            self.abort()
