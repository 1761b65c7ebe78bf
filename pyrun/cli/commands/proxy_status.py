"""`pyrun proxy status`: what a running `pyrun proxy` says of itself."""

from __future__ import annotations

from typing import Any

from pyrun.cli.commands.proxy_run import STATE
from pyrun.cli.output import compact, write
from pyrun.errors import printable
from pyrun.proxy.ask import ask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options


def run(g: Globals, o: Options) -> int:
    found = ask(o.state or STATE, "/status")
    if o.format == "json":
        write(compact(found) + "\n")
    else:
        write("".join([printable(line) + "\n" for line in _lines(found)]))
    return 0 if found["healthy"] else 1


def _lines(found: dict[str, Any]) -> list[str]:
    node = f"{found['node']} ({', '.join(found['addresses']) or 'no address yet'})"
    lines = [f"pyrun proxy {found['version']}, {found['mode']}, node {node}"]
    if found["waits_for"]:
        lines.append(f"  waits for {', '.join(found['waits_for'])}")
    lines.append(f"  serves {found['frontends']} addresses and ports with {found['endpoints']} endpoints")
    if found["bound"]:
        lines.append(f"  {found['bound']}")
    if found.get("beside"):  # a daemon of an earlier version has none
        lines.append(f"  {found['beside']}")
    lines += [f"  {one['what']}: {one['why']}, since {one['since']}" for one in found["hurdles"]]
    lines += [
        f"  not served since {one['since']}: {one['service']}: {one['subject']}: {one['why']}"
        for one in found["standing"]
    ]
    told = {f"{one['origin']}: {one['subject']}: {one['why']}" for one in found["standing"]}
    lines += [f"  wrong: {line}" for line in found["faults"]]
    return lines + [f"  refused: {line}" for line in found["refused"] if line not in told]
