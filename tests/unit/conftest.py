"""What the unit tests share: a run says at its end where the examples of property tests came from."""

from __future__ import annotations

from typing import Any

from tests.support import properties
from tests.support.threads import thread_check as thread_check


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Not in the run's header: pytest prints that before it knows this file."""
    if terminalreporter.verbosity >= 0:
        terminalreporter.write_line(properties.told())
