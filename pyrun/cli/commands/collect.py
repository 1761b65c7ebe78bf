"""`pyrun collect`: keeps the logs of pods in compressed blocks, and sends them on, until a signal ends it."""

from __future__ import annotations

import os
import signal
import sys

from pyrun.cli.output import compact
from pyrun.errors import InvalidArgument, Unimplemented
from pyrun.logs.tree import LOG_STORE, POD_LOGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options

DAYS, BYTES, LEAST_BYTES = 7, 2 << 30, 1 << 20


def run(g: Globals, o: Options) -> int:
    try:
        from pyrun.logs.collector import collect
        from pyrun.logs.entry import Rule
        from pyrun.logs.ship.record import parse_target
        from pyrun.logs.store import Keep, read_status
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("pyrun"):
            raise
        raise Unimplemented(
            f"the Python package {error.name} is not installed", hint="pip install 'pyrun[logs]' has all that it takes"
        ) from None
    root, store = os.path.abspath(o.dir or POD_LOGS), os.path.abspath(o.store or LOG_STORE)
    if o.status:
        _show(read_status(store), o.format)
        return 0
    keep = Keep(o.keep or DAYS * 86400, o.keep_bytes or BYTES)
    if keep.bytes < LEAST_BYTES:
        raise InvalidArgument("--keep-bytes: 1M is the least")
    for one in o.ship:
        parse_target(one)
    if o.once and o.ship:
        raise InvalidArgument("--once and --ship: lines are sent for as long as it runs")
    ended: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: ended.append(number))
    rule = None if o.no_join else Rule()
    collect(root, store, keep, _warn, lambda: bool(ended), once=o.once, targets=o.ship, rule=rule)
    return 0


def _warn(text: str) -> None:
    sys.stderr.write(f"pyrun: collect: {text}\n")


def _show(status: dict[str, Any], form: str) -> None:
    if form == "json":
        print(compact(status))
        return
    for name, value in status["counters"].items():
        print(f"{name:<24} {value}")
    for row in status["shipped"]:
        print(f"shipped to {row['target']}: {row['lines']} lines, {row['dropped']} refused and dropped,", end=" ")
        print(f"{row['lost_files']} files gone before; {row['failures']} failures: {row['last_error'] or 'none'}")
    for row in status["dropped"]:
        print(f"dropped by {row['why']}: {row['lines']} lines of {row['namespace']}/{row['pod']} {row['container']}")
