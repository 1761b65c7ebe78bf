"""The tests in this directory make real containers: they need root and tests/view, and may leave nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.container.leaks import leak_check as leak_check
from tests.support.cri import tools
from tests.support.engines.golang import Unavailable
from tests.support.threads import thread_check as thread_check

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def crictl() -> str:
    """Its path."""
    try:
        return str(tools.program("crictl"))
    except Unavailable as error:
        pytest.skip(str(error))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks every test of this directory `root`."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.root)
