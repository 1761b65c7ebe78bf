"""Pipes, terminals and packet sockets on the event loop, without threads and without asyncio's transports, which read
ahead.

A Reader or Writer owns its descriptor; closing it wakes whoever waits, so that none is left behind. One that waits
gives its place on the loop back however it ends."""

from __future__ import annotations

import asyncio
import errno
import os

CHUNK = 64 * 1024
# A terminal whose last program has ended says EIO, where a pipe has its end.
_ENDS = (errno.EIO, errno.ECONNRESET, errno.EBADF)


class _Waiter:
    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Future[None] | None = None

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _forget(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        if self.fd >= 0:
            self._forget()
            fd, self.fd = self.fd, -1
            os.close(fd)
            self._wake()


class Reader(_Waiter):
    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._seconds: float | None = None
        self._bytes = 0

    def _forget(self) -> None:
        self._loop.remove_reader(self.fd)

    def hurry(self, seconds: float, size: int) -> None:
        """From now on it waits for so long in all, and reads so much, and then it is as if the end had come."""
        self._seconds, self._bytes = seconds, size
        self._wake()

    async def read(self) -> bytes:
        """Some bytes; none at the end."""
        while self.fd >= 0 and (self._seconds is None or self._bytes > 0):
            try:
                data = os.read(self.fd, CHUNK)
            except BlockingIOError:
                if not await self._wait():
                    return b""
                continue
            except OSError as error:
                if error.errno in _ENDS:
                    return b""
                raise
            self._bytes -= len(data)
            return data
        return b""

    async def _wait(self) -> bool:
        self._waiting = self._loop.create_future()
        self._loop.add_reader(self.fd, self._wake)
        began = self._loop.time()
        limit = self._seconds
        try:
            async with asyncio.timeout(limit):
                await self._waiting
            return True
        except TimeoutError:
            return False
        finally:
            if limit is not None:
                self._seconds = max(0.0, limit - (self._loop.time() - began))
            if self.fd >= 0:
                self._forget()


class Writer(_Waiter):
    def _forget(self) -> None:
        self._loop.remove_writer(self.fd)

    async def write(self, data: bytes) -> None:
        """All of it. BrokenPipeError where nobody reads any more."""
        rest = memoryview(data)
        while rest:
            if self.fd < 0:
                raise BrokenPipeError(errno.EPIPE, "closed")
            try:
                rest = rest[os.write(self.fd, rest[:CHUNK]) :]
            except BlockingIOError:
                await self._wait()
            except OSError as error:
                raise BrokenPipeError(errno.EPIPE, os.strerror(error.errno or 0))

    async def _wait(self) -> None:
        self._waiting = self._loop.create_future()
        self._loop.add_writer(self.fd, self._wake)
        try:
            await self._waiting
        finally:
            if self.fd >= 0:
                self._forget()


async def readable(fd: int) -> None:
    """Until it is: a pidfd, an eventfd. It stays the caller's, who keeps it open."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(fd, wake)
    try:
        await ready
    finally:
        loop.remove_reader(fd)
