"""`pyrun node exec`: a command in a container of a pod, with the exit code that it has.

The agent starts it and hands over its descriptors: bytes go between the caller's and the container's, and through
nobody else. Standard input and a terminal are as with kubectl: neither without -i, and a terminal only where the
caller has one.
"""

from __future__ import annotations

from pyrun.cli.commands.cri import STATE
from pyrun.cli.pods import DEFAULT, container_of, containers_of, pod_of
from pyrun.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options

NO_TERMINAL = "Unable to use a TTY - input is not a terminal or the right kind of file"


def run(g: Globals, o: Options) -> int:
    if not o.command:
        raise UsageError("COMMAND is missing: pyrun node exec POD -- COMMAND…")
    from pyrun.cli.relay import relay_command, relay_terminal
    from pyrun.node.agent.remote import Remote, RemoteCommand, asked

    state = o.state or STATE
    pod = pod_of(state, o.namespace or "default", o.name)
    of = meant(g, pod, o.container)
    tty = terminal_wanted(g, o)
    streams = {"tty": tty, "stdin": o.stdin, "stdout": True, "stderr": not tty}
    place = f"{state}/node-streams.sock"
    command = RemoteCommand(Remote(asked(place, "exec", of=of, argv=list(o.command), **streams)))
    try:
        return relay_terminal(command) if tty else relay_command(command)
    finally:
        command.close()


def meant(g: Globals, pod: dict[str, Any], wanted: str | None) -> list[str]:
    """Which container, as the agent is asked for it: the first app container, and said so, where there are others."""
    meta, apps = pod["metadata"], pod["spec"]["containers"]
    if not wanted and len(apps) > 1 and DEFAULT not in (meta.get("annotations") or {}):
        wanted = apps[0]["name"]
        g.warn(f"container {wanted} is taken, out of {', '.join(c['name'] for c in containers_of(pod))}")
    found = container_of(pod, wanted)
    return [meta.get("namespace") or "default", meta["name"], meta["uid"], found["name"]]


def terminal_wanted(g: Globals, o: Options) -> bool:
    """Whether there is one, too."""
    import posix

    if not (o.tty and o.stdin):
        return False
    if not posix.isatty(0):
        g.warn(NO_TERMINAL)
        return False
    return True
