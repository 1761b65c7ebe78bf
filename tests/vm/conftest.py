"""The tests in this directory run in a guest with a kernel of its own (tests/support/vm/host.py): as root, with systemd
as process 1, cgroup v2 and every controller.

They are collected on the host as well, so importing one must need nothing that only the guest has.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.container.leaks import leak_check as leak_check

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks every test of this directory `vm` that has no such marker of its own."""
    for item in items:
        if HERE in item.path.parents and item.get_closest_marker("vm") is None:
            item.add_marker(pytest.mark.vm)
