"""An agent beside the CRI server, with its socket, and with a cluster where it has one."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncIterator, Callable

from ...cri.cri import Cri
from ...ending import apart
from .agent import Agent, Settings
from .socket import Socket
from .streams import SOCKET as STREAMS
from .streams import StreamSocket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..server.membership import Joining
    from ..services.services import Serving

SOCKET = "node.sock"
Beside = Callable[[Agent], contextlib.AbstractAsyncContextManager[None]]


@contextlib.asynccontextmanager
async def running(
    cri: Cri,
    settings: Settings,
    warn: Callable[[str], None],
    joining: Joining | None = None,
    serving: Serving | None = None,
    beside: Beside | None = None,
) -> AsyncIterator[None]:
    """While it is entered. PyrunError where it can't start. serving: the proxy and the DNS run here, too. beside:
    entered when the agent runs, and left before it ends."""
    agent = Agent(cri, settings, warn, joins=joining is not None)
    member = services = None
    if joining is not None:
        from ..server.membership import Membership

        member = Membership(agent, joining, warn)
    if serving is not None:
        from ..services.services import Services

        services = Services(cri, agent, serving, joining.cluster if joining is not None else None, warn)
    door = Socket(
        agent,
        member.error if member is not None else None,
        services,
        joining.kubeconfig if joining is not None else "",
    )
    streams = StreamSocket(agent)
    try:
        if services is not None:
            services.start()
        agent.start()
        await door.start(f"{cri.state}/{SOCKET}")
        streams.start(f"{cri.state}/{STREAMS}")
        if member is not None:
            member.start()
        async with beside(agent) if beside is not None else contextlib.nullcontext():
            yield
        if settings.shutdown.on_term and cri.ended_by == signal.SIGTERM:  # after anything else pods run on
            await agent.shut_down()
            if member is not None:
                await member.tell()
    finally:
        if member is not None:
            await member.stop()
        await streams.stop()
        await door.stop()
        await agent.stop()
        if services is not None:
            await apart(services.stop)
