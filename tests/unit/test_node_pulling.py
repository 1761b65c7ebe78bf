"""How far a pull is, told by the pod's events, from the store's threads to there."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from pyrun.image.fetch import Progress
from pyrun.node.agent.carry import Carrier
from pyrun.node.agent.events import Events
from pyrun.node.plan.actions import Pull
from pyrun.node.plan.observed import BackOff
from pyrun.pod.joined import Joined
from tests.support.node.world import pod_of

PATIENCE_S = 60.0
MIB = 1 << 20
LAYERS = [
    Progress("sha256:1", 100 * MIB, 100 * MIB, "there"),
    Progress("sha256:2", 0, 150 * MIB, "waiting"),
    Progress("sha256:3", 50 * MIB, 50 * MIB, "done"),
    Progress("sha256:2", 72 * MIB, 150 * MIB, "pulling"),
]


def test_a_pull_that_takes_long_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of layers that are here already nothing is said."""
    monkeypatch.setattr("pyrun.node.agent.pulling.FIRST_S", 0.001)
    seen = threading.Event()
    events = Events(lambda event: seen.set() if "61 %" in event.message else None)

    def pull(name: str, *, auth: Any, progress: Any) -> Any:
        for one in LAYERS:
            progress(one)
        assert seen.wait(PATIENCE_S)
        return SimpleNamespace(id="sha256:image")

    pulled = SimpleNamespace(begin=lambda *_: None, done=lambda *_: None, failed=lambda *_: None)
    record = SimpleNamespace(desired=lambda: SimpleNamespace(spec=pod_of("containers: [{name: c}]").spec))
    carrier: Any = Carrier.__new__(Carrier)
    carrier._host = SimpleNamespace(cri=SimpleNamespace(images=SimpleNamespace(pull=pull)), pulled=pulled)
    carrier._kept = SimpleNamespace(events=events, record=record)
    carrier.pulls, carrier.images, carrier._noted = {}, {}, Joined()

    async def main() -> None:
        await carrier._pull(Pull("i:1", BackOff(10.0, 0.0)))

    asyncio.run(main())
    assert carrier.images == {"i:1": "sha256:image"} and not carrier.pulls
    said = [event.message for event in events.all()]
    assert said[0] == 'Pulling image "i:1"' and said[-1].startswith('Successfully pulled image "i:1"')
    assert 'Pulling image "i:1": 61 %, 122 Mi of 200 Mi' in said
