"""Equal requests join: whoever asks for what is being done already waits for that, and gets its result.

A client's deadline or its end cancels its waiting and nothing else: the work is a task of its own, which is finished
and whose result the next equal request gets from the records. So no name is ever reserved by nobody (a kubelet that
comes back after its deadline finds the pod that it had asked for).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, TypeVar

Result = TypeVar("Result")


class Joined:
    """The works in progress, by what they do."""

    def __init__(self) -> None:
        self._tasks: dict[Hashable, asyncio.Task[Any]] = {}

    async def run(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """The result of work(), or of the one that runs under this key."""
        task: asyncio.Task[Result] | None = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.get_running_loop().create_task(work())
            task.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(task)

    def _forget(self, key: Hashable, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(key, None)
        if not task.cancelled():
            task.exception()  # it may be that nobody waits for it any more

    async def finish(self) -> None:
        """Until all that is in progress has ended, well or not."""
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))
