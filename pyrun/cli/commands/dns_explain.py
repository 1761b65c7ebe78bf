"""`pyrun dns explain`: all that the cluster's DNS answers for a directory of objects, and why. Needs no root."""

from __future__ import annotations

import json

from pyrun.cli.commands.dns_query import name_of, planned
from pyrun.cli.output import columns, write
from pyrun.dns.explain import table_rows

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options


def run(g: Globals, o: Options) -> int:
    rows = list(table_rows(planned(g, o), name_of(o.name or ".")))
    if o.format == "json":
        keys = ("name", "type", "data", "from")
        write("".join([json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in rows]))
    else:
        title = ("NAME", "TYPE", "DATA", "FROM")
        write(columns([title, *rows]))
    return 0
