"""`pyrun completion SHELL`: the script that makes the shell complete verbs, options and container ids."""

from __future__ import annotations

from pyrun.cli.click_app import completion_script
from pyrun.cli.options import SHELLS
from pyrun.cli.output import write
from pyrun.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options


def run(g: Globals, o: Options) -> int:
    if o.shell not in SHELLS:
        raise UsageError(f'no completion for "{o.shell}"', hint=f"there is one for {', '.join(SHELLS)}")
    write(completion_script(o.shell))
    return 0
