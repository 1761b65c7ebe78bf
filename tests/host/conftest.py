"""The tests in this directory make real containers: they need root and tests/view, and may leave nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.leaks import collect_traces, find_leaks

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks every test of this directory `root`."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.root)


@pytest.fixture(autouse=True)
def leak_check() -> Iterator[None]:
    """Fails a test that leaves a mount, a cgroup or a process. Ends after every other fixture, for it starts first."""
    before = collect_traces()
    yield
    leaks = find_leaks(before)
    assert not leaks, "left behind:\n" + "\n".join(leaks)
