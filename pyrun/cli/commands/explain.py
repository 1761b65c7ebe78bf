"""`pyrun explain`: every step that create would take, for a reader or as JSON. It makes nothing and needs no root."""

from __future__ import annotations

import json
import os

from pyrun.cli.commands.validate import config_path
from pyrun.cli.output import terminal_style, write
from pyrun.errors import printable
from pyrun.plan.words.explain import explain_data, explain_text
from pyrun.runtime.prepare import Config, prepare, read_config
from pyrun.runtime.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options
    from pyrun.plan.model.plan import Plan

PLACEHOLDER = "ID"
CONSOLE = "CONSOLE-SOCKET"
LINES_AT_ONCE = 1000


def run(g: Globals, o: Options) -> int:
    config = config_path(o)
    bundle = o.bundle or "."
    if os.path.isfile(bundle):
        bundle = os.path.dirname(bundle) or "."
    words: dict[str, Any] = {"rootless": g.rootless, "systemd": g.systemd_cgroup, "no_cgroup": g.no_cgroup}
    words["notify"] = bool(os.environ.get("NOTIFY_SOCKET"))
    read = read_config(bundle, config)
    if has_terminal(read):
        words["console_socket"] = CONSOLE
    plan = prepare(Store(g.root), PLACEHOLDER, bundle, read, imagine=True, **words).plan
    if o.format == "json":
        paths = {"bundle": os.path.abspath(bundle), "config": os.path.abspath(config)}
        print_lines(steps_as_json(plan, paths))
    else:
        width, color = terminal_style(1)
        print_lines(explain_text(plan, width=width, color=color, title=f"create of {printable(config)}"), styled=color)
    return 0


def has_terminal(config: Config) -> bool:
    """Whether create would want a socket for the terminal."""
    process = config.spec.process
    return process is not None and process.terminal


def print_lines(lines: Iterable[str], styled: bool = False) -> None:
    """Many lines at a time: a plan can have a hundred thousand of them."""
    waiting: list[str] = []
    for line in lines:
        waiting.append(line)
        if len(waiting) >= LINES_AT_ONCE:
            write("\n".join(waiting) + "\n", styled=styled)
            waiting.clear()
    if waiting:
        write("\n".join(waiting) + "\n", styled=styled)


def steps_as_json(plan: Plan, paths: dict[str, str]) -> Iterator[str]:
    """The plan as one JSON object, a step on each line. paths: what it was made of, by name."""
    encode = json.JSONEncoder(ensure_ascii=True, check_circular=False).encode
    named = ", ".join([f"{encode(name)}: {encode(path)}" for name, path in paths.items()])
    yield f'{{"version": 1, {named}, "lanes": ['
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
