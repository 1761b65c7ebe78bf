"""`pyrun explain`: every step that create would take, for a reader or as JSON. It makes nothing and needs no root."""

from __future__ import annotations

import json
import os
import shutil

from pyrun.cli.commands.validate import config_path
from pyrun.cli.output import write
from pyrun.plan.explain import explain_data, explain_text
from pyrun.runtime.create import prepare
from pyrun.runtime.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options
    from pyrun.plan.model import Plan

PLACEHOLDER = "ID"
CONSOLE = "CONSOLE-SOCKET"
LINES_AT_ONCE = 1000


def run(g: Globals, o: Options) -> int:
    config = config_path(o)
    bundle = o.bundle or "."
    if os.path.isfile(bundle):
        bundle = os.path.dirname(bundle) or "."
    words: dict[str, Any] = {"config": config, "rootless": g.rootless, "systemd": g.systemd_cgroup}
    plan = prepare(Store(g.root), PLACEHOLDER, bundle, detached=False, **words).plan
    if o.format == "json":
        _print(_as_json(plan, bundle, config))
    else:
        tty = os.isatty(1)
        width = shutil.get_terminal_size((110, 24)).columns if tty else 110
        color = tty and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        _print(explain_text(plan, width=max(width, 60), color=color, title=f"create of {config}"))
    return 0


def _print(lines: Iterable[str]) -> None:
    """Many lines at a time: a plan can have a hundred thousand of them."""
    waiting: list[str] = []
    for line in lines:
        waiting.append(line)
        if len(waiting) >= LINES_AT_ONCE:
            write("\n".join(waiting) + "\n")
            waiting.clear()
    if waiting:
        write("\n".join(waiting) + "\n")


def _as_json(plan: Plan, bundle: str, config: str) -> Iterator[str]:
    """The plan as one JSON object, a step on each line."""
    encode = json.JSONEncoder(ensure_ascii=True, check_circular=False).encode
    paths = f'"bundle": {encode(os.path.abspath(bundle))}, "config": {encode(os.path.abspath(config))}'
    yield f'{{"version": 1, {paths}, "lanes": ['
    for i, (lane, steps) in enumerate(explain_data(plan)):
        yield f'{"," if i else ""} {{"lane": {encode(lane)}, "steps": ['
        last = ""
        for step in steps:
            if last:
                yield last + ","
            last = "   " + encode(step)
        if last:
            yield last
        yield " ]}"
    yield "]}"
