"""GetContainerEvents."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from ..cri import Cri


async def get_container_events(cri: Cri, request: Any) -> AsyncIterator[Any]:
    async for event in cri.events.read():
        yield event
