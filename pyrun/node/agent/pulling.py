"""A pull that takes long says how far it is, by events: after ten seconds, and then after twice as long each time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from ...image.fetch import Progress
from ...kube.quantity import human_bytes
from .events import Events

FIRST_S = 10.0
T = TypeVar("T")


class Pulling:
    def __init__(self, image: str, events: Events) -> None:
        self._image, self._events = image, events
        self._layers: dict[str, Progress] = {}

    def tell(self, progress: Progress) -> None:
        """Of a layer; in any thread."""
        self._layers[progress.digest] = progress

    async def told_while(self, work: Coroutine[Any, Any, T]) -> T:
        """What it returns."""
        telling = asyncio.get_running_loop().create_task(self._tell_on())
        try:
            return await work
        finally:
            telling.cancel()

    async def _tell_on(self) -> None:
        pause = FIRST_S
        while True:
            await asyncio.sleep(pause)
            pause *= 2
            if text := self._text():
                self._events.add("Normal", "Pulling", f'Pulling image "{self._image}": {text}')

    def _text(self) -> str:
        """Such as `61 %, 412 Mi of 676 Mi`; empty before anything is known."""
        layers = [one for one in list(self._layers.values()) if one.state != "there"]
        done, total = sum(one.done for one in layers), sum(one.total for one in layers)
        return f"{100 * done // total} %, {human_bytes(done)} of {human_bytes(total)}" if total else ""
