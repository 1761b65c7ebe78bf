"""`pyrun proxy top`: connections and bytes by Service, or connections by endpoint, live.

A terminal shows as many lines as it has, the busiest first; anything else gets all."""

from __future__ import annotations

import shutil
import sys
import time
from typing import Any

from pyrun.cli.commands.proxy_run import STATE
from pyrun.cli.output import compact, write
from pyrun.errors import printable
from pyrun.proxy.ask import ask
from pyrun.proxy.rules import PROTOCOLS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options

EVERY_S = 1.0
OLDER = "the proxy that runs is an older one, which does not tell its endpoints"
NOT_COUNTED = "the kernel carries packets in this mode, and counts none of them by Service"
CLEAR = "\x1b[H\x1b[J"
HEAD = f"{'OPEN':>7} {'TOTAL':>9} {'NEW/S':>7} {'FAILED':>7} {'REFUSED':>8} {'RETRIED':>8} {'IN/S':>8} {'OUT/S':>8}  "
Key = tuple[Any, ...]


def run(g: Globals, o: Options) -> int:
    state = o.state or STATE
    table = endpoints_table if o.endpoints else frontends_table
    found = ask(state, "/counters")
    if o.once or o.format == "json":
        write(compact(found) + "\n" if o.format == "json" else "\n".join(table(found, {}, 1.0)) + "\n")
        return 0
    before: dict[Key, dict[str, Any]] = {}
    last = time.monotonic()
    try:
        while True:
            now = time.monotonic()
            lines = table(found, before, max(now - last, 0.001))
            if sys.stdout.isatty():
                lines = lines[: max(2, shutil.get_terminal_size().lines - 1)]
            write((CLEAR if sys.stdout.isatty() else "") + "\n".join(lines) + "\n")
            sys.stdout.flush()
            before, last = {_key(row): row for row in (*found["frontends"], *found.get("endpoints", ()))}, now
            time.sleep(EVERY_S)
            found = ask(state, "/counters")
    except (KeyboardInterrupt, BrokenPipeError):
        return 0


def frontends_table(found: dict[str, Any], before: dict[Key, dict[str, Any]], seconds: float) -> list[str]:
    """Lines: those with the most bytes a second first."""
    if found["mode"] != "userspace":
        return [NOT_COUNTED]
    rows = []
    for row in found["frontends"]:
        old = before.get(_key(row), row)
        rates = [max(0, row[name] - old[name]) / seconds for name in ("accepted", "bytes_in", "bytes_out")]
        rows.append((row, *rates))
    rows.sort(key=lambda one: (-(one[2] + one[3]), -one[0]["active"], -one[0]["accepted"], one[0]["name"]))
    return [f"{HEAD}SERVICE", *[_line(*row) for row in rows]]


def endpoints_table(found: dict[str, Any], before: dict[Key, dict[str, Any]], seconds: float) -> list[str]:
    """Lines: those with the most new connections a second first. FAILED: those it did not take."""
    if found["mode"] != "userspace":
        return [NOT_COUNTED]
    if "endpoints" not in found:
        return [OLDER]
    rows = []
    for row in found["endpoints"]:
        old = before.get(_key(row), row)
        rows.append((row, max(0, row["connected"] - old["connected"]) / seconds))
    rows.sort(key=lambda one: (-one[1], -one[0]["active"], -one[0]["connected"], one[0]["set"], one[0]["address"]))
    lines = [f"{'OPEN':>7} {'TOTAL':>9} {'NEW/S':>7} {'FAILED':>7}  ENDPOINT"]
    for row, new in rows:
        state = " gone" if row["gone"] else " terminating" if row["terminating"] else ""
        numbers = f"{row['active']:>7} {row['connected']:>9} {new:>7.0f} {row['failed']:>7}"
        lines.append(printable(f"{numbers}  {_where(row)} {row['set'] or '-'}{state}"))
    return lines


def _key(row: dict[str, Any]) -> Key:
    return row.get("protocol"), row.get("set"), row["address"], row["port"]


def _where(row: dict[str, Any]) -> str:
    return f"{row['address']}:{row['port']}" if ":" not in row["address"] else f"[{row['address']}]:{row['port']}"


def _line(row: dict[str, Any], new: float, into: float, out: float) -> str:
    numbers = f"{row['active']:>7} {row['accepted']:>9} {new:>7.0f} {row['failed']:>7} {row['refused']:>8}"
    numbers += f" {row['retried']:>8} {_size(into):>8} {_size(out):>8}"
    return printable(f"{numbers}  {row['name'] or '-'} {_where(row)}/{PROTOCOLS[row['protocol']]}")


def _size(value: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f}{unit}" if unit == "B" else f"{value:.1f}{unit}"
        value /= 1000
    raise AssertionError("not reached")
