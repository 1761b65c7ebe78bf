"""`pyrun run`: create and start in one; in the foreground its exit status is the program's, 128+n for signal n."""

from __future__ import annotations

from pyrun.cli.commands.create import request_words
from pyrun.runtime.run import run as run_container
from pyrun.runtime.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options
    from pyrun.plan.model.plan import Plan


def run(g: Globals, o: Options) -> int:
    words = request_words(g, o)
    words |= {"detach": o.detach, "keep": o.keep, "subreaper": not o.no_subreaper, "warn": g.warn}
    return run_container(Store(g.root), o.id, o.bundle or ".", traced=print_trace if o.trace else None, **words)


def print_trace(plan: Plan, took: list[int], failed: int | None) -> None:
    """On stderr, since stdout is the program's. Before the program says anything, or with what went wrong behind it."""
    from pyrun.cli.output import terminal_style, write
    from pyrun.plan.words.explain import format_trace

    width, color = terminal_style(2)
    write("\n".join(format_trace(plan, took, failed=failed, width=width, color=color)) + "\n", 2)
