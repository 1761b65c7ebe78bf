"""An agent beside the CRI server, with its socket."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

from ...cri.cri import Cri
from .agent import Agent, Settings
from .socket import Socket

SOCKET = "node.sock"


@contextlib.asynccontextmanager
async def running(cri: Cri, settings: Settings, warn: Callable[[str], None]) -> AsyncIterator[None]:
    """While it is entered. PyrunError where it can't start."""
    agent = Agent(cri, settings, warn)
    door = Socket(agent)
    try:
        agent.start()
        await door.start(f"{cri.state}/{SOCKET}")
        yield
    finally:
        await door.stop()
        await agent.stop()
