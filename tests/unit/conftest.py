"""What the unit tests share: where the examples of property tests come from stands in the head of the run."""

from __future__ import annotations

from tests.support import properties


def pytest_report_header() -> str:
    return properties.header()
