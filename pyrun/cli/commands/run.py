"""`pyrun run`: create and start in one; in the foreground its exit status is the program's, 128+n for signal n."""

from __future__ import annotations

from pyrun.cli.commands.create import request_words
from pyrun.runtime.run import run as run_container
from pyrun.runtime.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options


def run(g: Globals, o: Options) -> int:
    how = {"detach": o.detach, "keep": o.keep, "subreaper": not o.no_subreaper, "trace": o.trace, "warn": g.warn}
    return run_container(Store(g.root), o.id, o.bundle or ".", **how, **request_words(g, o))
