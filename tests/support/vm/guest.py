"""A pytest plugin for the guest's side: each report leaves by a serial port at once, for the run on the host to show.

A test gets a limit of time here, so that only a guest that is beyond this is called hung by the host. It runs the
items that the file named by PYRUN_VM_ITEMS lists, in that order.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

TEST_LIMIT_S = 300
FULL_KIB = 1024
PORT = os.environ.get("PYRUN_VM_PORT", "/dev/ttyS1")


def send(event: str, **fields: Any) -> None:
    """One line, all at once."""
    line = json.dumps({"event": event, **fields}).encode() + b"\n"
    fd = os.open(PORT, os.O_WRONLY | os.O_NOCTTY)
    try:
        while line:
            line = line[os.write(fd, line) :]
    finally:
        os.close(fd)


class TooLong(Exception):
    """The test has used up its time."""


def on_alarm(_signal: int, _frame: FrameType | None) -> None:
    raise TooLong(f"the test took longer than {TEST_LIMIT_S} s in the guest")


def pytest_configure(config: pytest.Config) -> None:
    signal.signal(signal.SIGALRM, on_alarm)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keeps the items that were asked for, in the order in which the host waits for them."""
    wanted = Path(os.environ["PYRUN_VM_ITEMS"]).read_text().splitlines()
    by_id = {item.nodeid: item for item in items}
    items[:] = [by_id[name] for name in wanted if name in by_id]
    send("collected", missing=[name for name in wanted if name not in by_id], kernel=os.uname().release)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        send("collect-error", nodeid=report.nodeid, text=report.longreprtext)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    send("start", nodeid=item.nodeid)
    signal.alarm(TEST_LIMIT_S)
    try:
        return (yield)
    finally:
        signal.alarm(0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: Any = yield
    free = shutil.disk_usage("/").free >> 10
    if report.failed and free < FULL_KIB:
        report.sections.append(("the guest's disk is full", f"/ has {free} KiB free"))
    return report  # type: ignore[no-any-return]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    assert CONFIG is not None
    send("report", data=CONFIG.hook.pytest_report_to_serializable(config=CONFIG, report=report))


CONFIG: pytest.Config | None = None


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    global CONFIG
    CONFIG = session.config
