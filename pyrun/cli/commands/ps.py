"""`pyrun ps`: the processes in a container, as ps(1) shows them; its options may follow the id."""

from __future__ import annotations

import subprocess

from pyrun.cli.output import compact, write
from pyrun.errors import PyrunError
from pyrun.runtime.runtime import Runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options


def run(g: Globals, o: Options) -> int:
    pids = Runtime(g.root).container(o.id).pids()
    write(compact(pids) + "\n" if o.format == "json" else filtered(_ps(o.ps_option or ("-ef",)), pids))
    return 0


def _ps(options: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(("ps", *options), capture_output=True, text=True, errors="surrogateescape", check=False)
    except FileNotFoundError:
        raise PyrunError("ps: executable file not found in $PATH", hint="install procps, or use --format json")
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
        raise PyrunError(f"ps {' '.join(options)}: {said[0]}", hint="what follows the id are options of ps(1)")
    return done.stdout


def filtered(table: str, pids: list[int]) -> str:
    """The title of ps's table and the rows of these pids."""
    title, *rows = table.splitlines() or [""]
    names = title.split()
    if "PID" not in names:
        raise PyrunError("couldn't find PID field in ps output", hint="the options of ps must leave its PID column in")
    place = names.index("PID")
    wanted = {str(pid) for pid in pids}
    kept = [row for row in rows if len(words := row.split(None, place + 1)) > place and words[place] in wanted]
    return "\n".join([title, *kept]) + "\n"
