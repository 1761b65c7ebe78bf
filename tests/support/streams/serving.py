"""A streaming server over the backend of real processes, and the look whether it left anything behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from pyrun.cri.stream.server import Streams
from pyrun.http.remotecommand import Wanted
from tests.support.streams.backend import Backend

OUT = Wanted(stdin=False, stdout=True, stderr=True, tty=False)
ALL = Wanted(stdin=True, stdout=True, stderr=True, tty=False)
TTY = Wanted(stdin=True, stdout=True, stderr=False, tty=True)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[tuple[Streams, Backend]]:
    backend = Backend()
    streams = Streams(backend)
    await streams.start()
    try:
        yield streams, backend
        await settle(lambda: streams.server.connections() == 0)
    finally:
        await streams.stop()
        await asyncio.to_thread(backend.end)
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert not left, left


async def settle(true: Callable[[], bool], seconds: float = 10.0) -> None:
    """Waits until it is."""
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.01)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """The test on a loop of its own, within a minute; no descriptor is open after it that was not before."""
    before = descriptors()

    async def bounded() -> None:
        async with asyncio.timeout(60):
            await test()

    asyncio.run(bounded())
    assert descriptors() == before
