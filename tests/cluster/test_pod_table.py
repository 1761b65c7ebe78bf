"""The table of pods against a real API server, by dry runs: refused and accepted alike, with equal defaults.

What is refused is compared by whether, and not by where: our pointers name the one field that is to be changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from pyrun.errors import PyrunError
from pyrun.kube.client import path
from pyrun.kube.quantity import parse
from pyrun.kube.validate.objects import read_object
from tests.support.kube.control_plane import ControlPlane, a_control_plane
from tests.support.kube.pod_table import ROWS, Row

PODS = path("v1", "pods", "default")


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    gates = sorted({row.gate for row in ROWS if row.gate})
    with a_control_plane(tmp_path_factory.mktemp("plane"), gates=gates) as made:
        yield made


@pytest.fixture(scope="module")
def posted(plane: ControlPlane) -> list[tuple[Row, Any, str]]:
    """Each row, and what the server makes of it, or why it does not."""
    found: list[tuple[Row, Any, str]] = []
    for row in ROWS:
        try:
            made = plane.admin.create(PODS, row.pod(), dryRun="All", fieldValidation="Strict")
            found.append((row, made, ""))
        except PyrunError as error:
            found.append((row, None, error.text))
    return found


def test_the_same_pods_are_taken(posted: list[tuple[Row, Any, str]]) -> None:
    """But for the rows that say that we are stricter."""
    differ = []
    for row, made, why in posted:
        taken = made is not None
        if taken == (bool(row.fault) and not row.ours):
            differ.append(f"{row.name}: ours {row.fault or 'takes it'}; the API server: {why or 'takes it'}")
    assert not differ, "\n".join(differ)


def test_the_same_defaults(posted: list[tuple[Row, Any, str]]) -> None:
    """Of all that both take: our spec is the API server's, field by field."""
    differ = []
    for row, made, _ in posted:
        ours, _faults = read_object(row.pod())
        if made is not None and ours is not None:
            mine = msgspec.to_builtins(ours)["spec"]
            differ += [f"{row.name}: {line}" for line in differences(mine, made["spec"])]
    assert not differ, "\n".join(differ)


def differences(mine: Any, theirs: Any, at: str = "") -> list[str]:
    """A place a line. Quantities are compared by what they come to: an API server writes 0.5 as 500m; and it leaves out
    what is empty."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        keys = sorted(mine.keys() | theirs.keys())
        return [line for key in keys for line in differences(mine.get(key), theirs.get(key), f"{at}/{key}")]
    if isinstance(mine, list) and isinstance(theirs, list) and len(mine) == len(theirs):
        pairs = enumerate(zip(mine, theirs, strict=True))
        return [line for i, (one, other) in pairs for line in differences(one, other, f"{at}/{i}")]
    if (
        mine == theirs
        or (mine in ([], {}) and theirs is None)
        or ("/resources/" in at and mine is not None and parse(mine) == parse(theirs))
    ):
        return []
    return [f"{at}: ours {mine!r}, the API server's {theirs!r}"]
