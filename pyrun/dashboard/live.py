"""The state for all tabs: read while somebody looks, and handed to each as what has changed since it last took some."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from ..errors import PyrunError, Unavailable
from ..web.ask import Questions
from .state import State, delta

# After nobody looks any more the reading goes on for so long: pages are reloaded.
LINGER_S = 5.0


class Live:
    def __init__(self, questions: Questions) -> None:
        self._questions = questions
        self._state: State | None = None
        self._error: PyrunError | None = None
        self._changed = asyncio.Condition()
        self._lookers = 0
        self._task: asyncio.Task[None] | None = None

    async def state(self, patience_s: float = 30.0) -> State:
        """What there is now. PyrunError where it can't be had."""
        async with contextlib.aclosing(self.deltas(patience_s)) as deltas:
            put, _ = await anext(deltas)
        if not put:
            raise Unavailable(f"no state in {patience_s:.0f} s", hint="does the runtime answer?")
        return put

    async def deltas(self, wait_s: float) -> AsyncGenerator[tuple[State, list[str]], None]:
        """(what is put, what is gone): all at first, then what differs, or nothing after `wait_s` seconds without."""
        self._begin()
        try:
            taken: State = {}
            while True:
                async with self._changed:
                    if self._state is None or self._state is taken:
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(wait_s):
                                await self._changed.wait()
                    if self._error is not None:
                        raise self._error
                    state = self._state if self._state is not None else taken
                yield delta(taken, state)
                taken = state
        finally:
            self._lookers -= 1

    def _begin(self) -> None:
        self._lookers += 1
        if self._task is None or self._task.done():
            self._state = self._error = None
            self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        answers = self._questions.ask("watch")
        idle = 0.0
        try:
            async for state in answers:
                await self._tell(state, None)
                now = asyncio.get_running_loop().time()
                idle = 0.0 if self._lookers else idle or now
                if idle and now - idle > LINGER_S:
                    self._task = None  # who comes from here on starts another
                    return
            await self._tell(None, Unavailable("the reader has ended its answer", hint="what does its log say?"))
        except PyrunError as error:
            await self._tell(None, error)
        finally:
            await answers.aclose()

    async def _tell(self, state: State | None, error: PyrunError | None) -> None:
        async with self._changed:
            self._state, self._error = state, error
            self._changed.notify_all()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
