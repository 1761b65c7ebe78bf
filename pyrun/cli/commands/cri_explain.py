"""`pyrun cri explain`: every step that a pod's sandbox or a container of the CRI would take. It makes nothing and needs
no root."""

from __future__ import annotations

from pyrun.cli.commands.cri import missing_package
from pyrun.cli.commands.explain import print_lines, steps_as_json
from pyrun.cli.output import indented, terminal_style, write
from pyrun.errors import printable
from pyrun.plan.words.explain import explain_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options


def run(g: Globals, o: Options) -> int:
    try:
        from pyrun.cri.explain import explain_request

        made = explain_request(o.request, o.pod, o.image)
    except ModuleNotFoundError as error:
        raise missing_package(error)
    for text in made.warnings:
        g.warn(text)
    if o.config:
        write(indented(made.config or {}, " ") + "\n")
    elif o.format == "json":
        print_lines(steps_as_json(made.plan, {"request": o.request}))
    else:
        width, color = terminal_style(1)
        title = f"{made.what}, from {printable(o.request)}"
        print_lines(explain_text(made.plan, width=width, color=color, title=title), styled=color)
    return 0
