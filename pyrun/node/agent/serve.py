"""An agent beside the CRI server, with its socket, and with a cluster where it has one."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

from ...cri.cri import Cri
from .agent import Agent, Settings
from .socket import Socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..server.membership import Joining

SOCKET = "node.sock"


@contextlib.asynccontextmanager
async def running(
    cri: Cri, settings: Settings, warn: Callable[[str], None], joining: Joining | None = None
) -> AsyncIterator[None]:
    """While it is entered. PyrunError where it can't start."""
    agent = Agent(cri, settings, warn, joins=joining is not None)
    member = None
    if joining is not None:
        from ..server.membership import Membership

        member = Membership(agent, joining, warn)
    door = Socket(agent, member.error if member is not None else None)
    try:
        agent.start()
        await door.start(f"{cri.state}/{SOCKET}")
        if member is not None:
            member.start()
        yield
    finally:
        if member is not None:
            await member.stop()
        await door.stop()
        await agent.stop()
