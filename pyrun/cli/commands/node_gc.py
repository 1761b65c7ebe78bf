"""`pyrun node gc`: which images go to make room, and why the others stay."""

from __future__ import annotations

from pyrun.cli.commands.cri import STATE
from pyrun.cli.commands.node_get import age
from pyrun.cli.output import columns, compact, write
from pyrun.errors import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options

PATIENCE_S = 600.0  # large images take their time to be removed


def run(g: Globals, o: Options) -> int:
    from pyrun.kube.quantity import human_bytes
    from pyrun.node.agent.ask import ask

    method = "GET" if o.dry_run else "POST"
    found = ask(o.state or STATE, "garbage", method=method, patience=PATIENCE_S)
    if o.format == "json":
        write(compact(found) + "\n")
        return 0
    write(printable(found["why"]) + "\n")
    rows = [["IMAGE", "SIZE", "USED", "", "WHY"]]
    for one in found["images"]:
        word = ("would go" if o.dry_run else "goes") if one["goes"] else "stays"
        rows.append([printable(one["name"]), human_bytes(one["size"]), age(one["used"]), word, printable(one["why"])])
    write(columns(rows))
    if not o.dry_run:
        write(f"{human_bytes(found['freed'])} bytes freed\n")
    return 0
