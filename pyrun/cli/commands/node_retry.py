"""`pyrun node retry`: ends the back-offs of a pod."""

from __future__ import annotations

from pyrun.cli.commands.cri import STATE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options


def run(g: Globals, o: Options) -> int:
    from pyrun.node.agent.ask import ask

    ask(o.state or STATE, "retry", o.namespace or "default", o.name, method="POST")
    return 0
