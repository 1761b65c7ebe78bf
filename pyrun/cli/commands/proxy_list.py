"""`pyrun proxy list`: each address and port that the proxy has for Services, and how many endpoints.

Of objects in files, which needs no root; or of a proxy that runs, with what it can't serve.
"""

from __future__ import annotations

from typing import Any

from pyrun.cli.commands.proxy_run import STATE
from pyrun.cli.commands.proxy_trace import given
from pyrun.cli.output import columns, indented, write
from pyrun.cli.table_proxy import PROXY_NODE
from pyrun.errors import UsageError, printable
from pyrun.kube.addresses import parse_address, port_text
from pyrun.proxy.ask import ask
from pyrun.proxy.plan import plan_proxy
from pyrun.proxy.standing import frontend_row

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options


def run(g: Globals, o: Options) -> int:
    if not o.objects:
        return _of_running(g, o)
    if o.state:
        raise UsageError("--state is of a proxy that runs, and --objects of files: take one of them")
    files, node, decided = given(g, o)
    rules = plan_proxy(files.objects.services.values(), files.objects.slices.values(), node, decided)
    for refusal in rules.refused:
        g.warn(f"{files.place_text(refusal.origin)}: {refusal.subject}: {refusal.why}")
    sets = {one.key: one for one in rules.sets}
    frontends = sorted(rules.frontends, key=lambda one: (one.name, len(one.address), one.address, one.port))
    if o.format == "json":
        write(indented([frontend_row(one, sets) | files.place(one.origin) for one in frontends], " ") + "\n")
    else:
        rows = [("SERVICE", "KIND", "ADDRESS", "ENDPOINTS", "FROM")]
        made = [(*as_row(frontend_row(one, sets)), files.place_text(one.origin)) for one in frontends]
        write(columns([*rows, *made]))
    return 0


def asked(o: Options) -> dict[str, Any]:
    """What a proxy that runs has. UsageError where something is said of the node, which is of files."""
    for option in PROXY_NODE:
        if getattr(o, option.name.replace("-", "_")):
            raise UsageError(f"--{option.name} is for objects of files, and --objects is missing")
    return ask(o.state or STATE, "/list")


def _of_running(g: Globals, o: Options) -> int:
    found = asked(o)
    for one in found["hurdles"]:
        g.warn(f"{one['what']}: {one['why']}, since {one['since']}")
    if o.format == "json":
        write(indented(found["frontends"], " ") + "\n")
        return 0
    rows = [("SERVICE", "KIND", "ADDRESS", "ENDPOINTS", "SERVED", "FROM")]
    for one in found["frontends"]:
        served = f"no, since {one['unserved']['since']}" if one["unserved"] else "yes"
        rows.append((*as_row(one), served, one["origin"]))
    write(columns(rows))
    write("".join([printable(line) + "\n" for line in _not_served(found["frontends"])]))
    return 0


def _not_served(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        f"{one['service']}: {one['unserved']['subject']}: {one['unserved']['why']}" for one in rows if one["unserved"]
    ]
    return ["", "Not served", *[f"  {line}" for line in dict.fromkeys(lines)]] if lines else []


def as_row(one: dict[str, Any]) -> tuple[str, str, str, str]:
    used = one["endpoints"]
    count = str(len(used)) if used else f"none, {one['choices'][-1]['action']}"
    where = f"{port_text(parse_address(one['address']), one['port'])}/{one['protocol']}"
    return f"{one['service']}:{one['servicePort']}", one["kind"], where, count
