"""`pyrun exec`: one more program in a container; exits as it does, or with 255 when it can't be run."""

from __future__ import annotations

from pyrun.errors import UsageError
from pyrun.runtime.exec import exec_process
from pyrun.runtime.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options


def run(g: Globals, o: Options) -> int:
    if not o.command and not o.process:
        raise UsageError("COMMAND is missing: pyrun exec [OPTIONS] ID COMMAND...", hint="or give --process FILE")
    return exec_process(Store(g.root), o, rootless=g.rootless)  # type: ignore[arg-type]
