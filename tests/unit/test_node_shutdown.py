"""In which order pods end with the node, and what is said of it."""

from __future__ import annotations

import pytest

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
