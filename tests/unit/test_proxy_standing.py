"""What a proxy that runs says that it does not serve."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from pyrun.proxy.daemon import Daemon
from pyrun.proxy.rules import TCP, Choice, Frontend, Refusal, Rules
from pyrun.proxy.standing import Standing


def test_what_is_not_served_has_a_time_as_soon_as_it_is_said() -> None:
    """Which is when the rules without it are in force, and not when it turns out that they will be."""
    one = Frontend("default/web:http node", TCP, bytes(4), 30022, (Choice((), 0),), origin="here")
    refused = Refusal("0.0.0.0:30022/tcp", "a program has it", "here", "NodePortInUse", ("default", "web"))
    told: list[str] = []
    daemon: Any = SimpleNamespace(
        _planned=Rules(frontends=(one,)),
        _blocked={one.key: refused},
        _unserved={},
        _socketless={},
        _not_served={},
        _check_faults=[],
        _refused_told=set(),
        _refusals=lambda: [refused],
        _tell_events=lambda: None,
        standing=Standing(),
        told=told.append,
    )
    (row,) = Daemon.listing(daemon)["frontends"]
    assert row["unserved"] is None
    Daemon._tell_refused(daemon)
    (row,) = Daemon.listing(daemon)["frontends"]
    assert row["unserved"]["reason"] == "NodePortInUse" and row["unserved"]["since"].endswith("Z") and len(told) == 1
