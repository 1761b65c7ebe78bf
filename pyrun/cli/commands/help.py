"""`pyrun help [VERB...]`: the same as --help."""

from __future__ import annotations

from pyrun.cli.click_app import show_help
from pyrun.cli.parse import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options


def run(g: Globals, o: Options) -> int:
    call = parse([*o.verb, "--help"])
    return show_help(call.verb.name if call.verb else None)
