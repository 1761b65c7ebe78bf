"""An agent beside the CRI server, with its socket, and with a cluster where it has one."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable

from ...cri.cri import Cri
from ...ending import apart
from .agent import Agent, Settings
from .logind import Inhibitor
from .socket import Socket
from .streams import SOCKET as STREAMS
from .streams import StreamSocket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..server.membership import Joining, Membership
    from ..services.services import Serving

SOCKET = "node.sock"


class Shutdowns:
    """The machine's, as logind tells: it waits until the pods have ended and the API server knows."""

    def __init__(self, agent: Agent, member: Membership | None, warn: Callable[[str], None]) -> None:
        self._agent, self._member, self._warn = agent, member, warn
        self._ending: asyncio.Task[None] | None = None
        self.inhibitor = Inhibitor(agent.settings.shutdown.grace, self._told, warn)

    def _told(self, begins: bool) -> None:
        if not begins:
            if self._ending is not None:
                self._ending.cancel()  # pods that have not been told to end yet are not
                self._ending = None
            self._agent.called_off()
        elif self._ending is None or self._ending.done():
            self._ending = asyncio.get_running_loop().create_task(self._end())

    async def _end(self) -> None:
        try:
            await self._agent.shut_down()
            if self._member is not None:
                await self._member.tell()
        except Exception as error:
            self._warn(f"the machine's shutdown waits no longer: {type(error).__name__}: {error}")
        self.inhibitor.release()

    async def close(self) -> None:
        """What goes on is let end: it has its time."""
        if self._ending is not None:
            await asyncio.gather(self._ending, return_exceptions=True)
        await apart(self.inhibitor.close)


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
    held = Shutdowns(agent, member, warn) if settings.shutdown.grace and not settings.shutdown.on_term else None
    door = Socket(
        agent,
        member.error if member is not None else None,
        services,
        joining.kubeconfig if joining is not None else "",
        (lambda: held.inhibitor.trouble) if held is not None else None,
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
        if held is not None:
            held.inhibitor.start()
        async with beside(agent) if beside is not None else contextlib.nullcontext():
            yield
        if settings.shutdown.on_term and cri.ended_by == signal.SIGTERM:  # after anything else pods run on
            await agent.shut_down()
            if member is not None:
                await member.tell()
    finally:
        if held is not None:
            await held.close()
        if member is not None:
            await member.stop()
        await streams.stop()
        await door.stop()
        await agent.stop()
        if services is not None:
            await apart(services.stop)
