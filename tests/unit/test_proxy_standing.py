"""What a proxy that runs says that it does not serve."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from pyrun.proxy.daemon import Daemon
from pyrun.proxy.rules import TCP, Choice, Frontend, Refusal, Rules
from pyrun.proxy.sctp import probe
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


def test_what_the_kernel_lacks_is_asked_now_and_then() -> None:
    """Not for each Service: it takes some thirty transactions. Once it is there, all is served without a change."""
    some = [Frontend(f"default/k{n}", TCP, bytes(4), n, (Choice((), 0),), kernel=True) for n in range(1, 100)]
    lacks, asked = ["no masquerade"], []

    def ask() -> str:
        asked.append(1)
        return lacks[0]

    daemon: Any = SimpleNamespace(
        given=SimpleNamespace(mode="userspace"),
        carrier=SimpleNamespace(lacks=ask, renew=lambda: None),
        health=SimpleNamespace(applied=0.0),
        store=SimpleNamespace(is_whole=lambda: True),
        _sctp=probe(),
        _lacks=None,
        _ask_at=0.0,
        _say_at=0.0,
        _check_faults=[],
        _blocked={},
        _all_anew=False,
    )
    daemon._kernel_lacks = lambda: Daemon._kernel_lacks(daemon)
    rules = Rules(frontends=tuple(some))
    assert len(Daemon._find_unserved(daemon, rules)) == len(some) == 99
    Daemon._find_unserved(daemon, rules)
    Daemon._tick(daemon)
    assert len(asked) == 1 and not daemon._all_anew
    lacks[0] = ""
    daemon._ask_at = 0.0
    Daemon._tick(daemon)
    assert daemon._all_anew and not Daemon._find_unserved(daemon, rules)
