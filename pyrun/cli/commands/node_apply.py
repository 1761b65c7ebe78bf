"""`pyrun node apply`: objects into the directory of manifests of the running node."""

from __future__ import annotations

from pyrun.cli.commands.cri import STATE
from pyrun.cli.commands.node_validate import missing_package
from pyrun.cli.output import write
from pyrun.errors import PyrunError, UsageError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options


def run(g: Globals, o: Options) -> int:
    from pyrun.node.agent.ask import ask

    values = values_of(o.filename, "")
    for done in ask(o.state or STATE, "apply", method="POST", body=values):
        write(printable(f"{done['kind'].lower()}/{done['name']} {done['what']}") + "\n")
    return 0


def values_of(files: tuple[str, ...], node: str) -> list[dict[str, Any]]:
    """The objects of files, as they are written there. PyrunError where one has a fault, each told with its place."""
    if not files:
        raise UsageError("no objects: -f FILE, or -f - for what is read here")
    if files.count("-") > 1:
        raise UsageError("-f -: what is read here can be read once")
    try:
        from pyrun.node.manifests import read_all
    except ModuleNotFoundError as error:
        raise missing_package(error)
    read, faults = read_all(files, node)
    if faults:
        write("".join([printable(str(fault)) + "\n" for fault in faults]), 2)
        raise PyrunError(f"nothing was changed: {len(faults)} fault{'s' if len(faults) > 1 else ''} in what was given")
    if not read:
        raise PyrunError(f"there is no object in {', '.join(files)}")
    return [one.document.value for one in read]
