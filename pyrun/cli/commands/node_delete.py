"""`pyrun node delete`: objects out of the directory of manifests, and the ends of pods."""

from __future__ import annotations

from pyrun.cli.commands.cri import STATE
from pyrun.cli.commands.node_apply import values_of
from pyrun.cli.commands.node_get import KINDS, kind_of
from pyrun.cli.output import write
from pyrun.errors import PyrunError, UsageError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options

WAIT_S = 600


def run(g: Globals, o: Options) -> int:
    from pyrun.node.agent.ask import ask

    if o.now and o.grace_period is not None:
        raise UsageError("--now and --grace-period exclude each other")
    grace = 1 if o.now else o.grace_period
    if grace is not None and grace < 0:
        raise UsageError(f"--grace-period {grace}: must be 0 or more")
    for kind, namespace, name in _chosen(o):
        done = ask(
            o.state or STATE,
            kind,
            namespace,
            name,
            method="DELETE",
            patience=WAIT_S + 10,
            grace=None if grace is None else str(grace),
            wait=None if o.no_wait else str(WAIT_S),
        )
        if not done["gone"] and not o.no_wait:
            raise PyrunError(f"{name} has not ended in {WAIT_S} s", hint=f"pyrun node describe {name} says why")
        write(printable(f"{KINDS[kind][1]}/{name} deleted") + "\n")
    return 0


def _chosen(o: Options) -> list[tuple[str, str, str]]:
    """(kind, namespace, name) of each."""
    if o.filename and o.what:
        raise UsageError("names and -f exclude each other")
    if o.filename:
        found = []
        for value in values_of(o.filename, ""):
            meta = value.get("metadata") or {}
            found.append((kind_of(value["kind"]), meta.get("namespace") or "default", meta["name"]))
        return found
    if len(o.what) < 2:
        raise UsageError("what to delete: KIND NAME …, or -f FILE")
    kind, *names = o.what
    return [(kind_of(kind), o.namespace or "default", name) for name in names]
