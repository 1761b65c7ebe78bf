"""In which order pods end with the node, and what is said of it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from pyrun.node.agent.serve import Shutdowns
from pyrun.node.shutdown import Ending, Group, Shutdown, plan_shutdown

CRITICAL = 2_000_000_000
WEB, SYSTEM = Ending("shop/web", 0, 30.0), Ending("kube-system/dns", CRITICAL, 30.0)


@pytest.mark.parametrize(
    ("settings", "pods", "groups"),
    [
        (Shutdown(30, 10), [SYSTEM, WEB], [Group(20, (("shop/web", 20),)), Group(10, (("kube-system/dns", 10),))]),
        (Shutdown(120, 60), [WEB, SYSTEM], [Group(60, (("shop/web", 30),)), Group(60, (("kube-system/dns", 30),))]),
        (Shutdown(30, 0), [WEB, SYSTEM], [Group(30, (("shop/web", 30),)), Group(0, (("kube-system/dns", 0),))]),
        (Shutdown(30, 30), [WEB], [Group(0, (("shop/web", 0),))]),
        (Shutdown(30, 10), [], []),
        (
            Shutdown(30, 10),
            [WEB, Ending("shop/api", CRITICAL - 1, 5.0)],
            [Group(20, (("shop/api", 5), ("shop/web", 20)))],
        ),
    ],
)
def test_groups(settings: Shutdown, pods: list[Ending], groups: list[Group]) -> None:
    assert plan_shutdown(pods, settings) == groups


class Agent:
    """Whose pods end when they are let."""

    def __init__(self) -> None:
        self.settings = SimpleNamespace(shutdown=Shutdown(30))
        self.said: list[str] = []
        self.ended = asyncio.Event()

    async def shut_down(self) -> None:
        self.said.append("ends")
        await self.ended.wait()
        self.said.append("ended")

    def called_off(self) -> None:
        self.said.append("goes on")


def test_a_shutdown_that_is_called_off_in_its_midst_ends_no_more_pods_and_keeps_the_next_lock() -> None:
    async def main() -> None:
        agent: Any = Agent()
        shutdowns = Shutdowns(agent, None, pytest.fail)
        released: Any = shutdowns.inhibitor
        released.release = lambda: agent.said.append("released")
        shutdowns._told(True)
        await asyncio.sleep(0)
        shutdowns._told(False)  # by then the lock for the next one is held
        shutdowns._told(True)
        agent.ended.set()
        for _ in range(20):
            await asyncio.sleep(0)
        await shutdowns.close()
        assert agent.said == ["ends", "goes on", "ends", "ended", "released"]

    asyncio.run(main())
