"""The kubelet's API beside an agent, whose process without privileges runs already."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from ..ending import apart
from ..kube.certificates import Pair
from ..kube.client import Client
from ..kube.kubeconfig import load_kubeconfig
from ..kube.signing import SERVING
from ..node.agent.agent import Agent
from ..node.join.renewal import Renewal
from .answers import Answers
from .reviews import Alone, AlwaysAllow, ByServer
from .start import Door, Wanted


@contextlib.asynccontextmanager
async def answering(
    agent: Agent, door: Door, wanted: Wanted, kubeconfig: str | None, warn: Callable[[str], None]
) -> AsyncIterator[None]:
    """While it is entered. PyrunError where the kubeconfig is none. Where no certificate is given, one is asked for of
    the API server; until it is approved, the one that we have signed is shown."""
    client = Client(load_kubeconfig(kubeconfig)) if kubeconfig else None
    reviews = Alone() if client is None else ByServer(client, agent.name)
    mode = AlwaysAllow(reviews) if wanted.always_allow else reviews
    answers = Answers(agent, door.control, mode, wanted.config())
    answers.start()
    renewal = None
    if client is not None and wanted.signed and wanted.tls is None:
        loop = asyncio.get_running_loop()

        def renewed(pair: Pair) -> None:
            loop.call_soon_threadsafe(answers.renewed, pair)

        renewal = Renewal(client, SERVING, wanted.approved, wanted.subject(), warn, renewed)
        renewal.start()
    kept = asyncio.create_task(door.keep(warn))
    try:
        yield
    finally:
        kept.cancel()
        if renewal is not None:
            await apart(renewal.stop)
        await answers.stop()
        if client is not None:
            client.close()
