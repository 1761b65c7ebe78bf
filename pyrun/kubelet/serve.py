"""The kubelet's API beside an agent, whose process without privileges runs already."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

from ..kube.client import Client
from ..kube.kubeconfig import load_kubeconfig
from ..node.agent.agent import Agent
from .answers import Answers
from .reviews import Alone, AlwaysAllow, ByServer
from .start import Door, Wanted


@contextlib.asynccontextmanager
async def answering(
    agent: Agent, door: Door, wanted: Wanted, kubeconfig: str | None, warn: Callable[[str], None]
) -> AsyncIterator[None]:
    """While it is entered. PyrunError where the kubeconfig is none."""
    client = Client(load_kubeconfig(kubeconfig)) if kubeconfig else None
    reviews = Alone() if client is None else ByServer(client, agent.name)
    mode = AlwaysAllow(reviews) if wanted.always_allow else reviews
    answers = Answers(agent, door.control, mode, wanted.config(), warn)
    answers.start()
    try:
        yield
    finally:
        await answers.stop()
        if client is not None:
            client.close()
