"""`pyrun node attach`: what a container's own program writes from now on, and with -i what it reads."""

from __future__ import annotations

from pyrun.cli.commands.cri import STATE
from pyrun.cli.commands.node_exec import meant, terminal_wanted
from pyrun.cli.pods import container_of, pod_of
from pyrun.errors import FailedPrecondition

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options


def run(g: Globals, o: Options) -> int:
    from pyrun.cli.relay import relay_attachment
    from pyrun.node.agent.remote import Remote, RemoteAttachment, asked

    state = o.state or STATE
    pod = pod_of(state, o.namespace or "default", o.name)
    of = meant(g, pod, o.container)
    container = container_of(pod, of[-1])
    if o.stdin and not container.get("stdin"):
        raise FailedPrecondition(f"container {of[-1]} has no standard input", hint="`stdin: true` would give it one")
    tty = terminal_wanted(g, o) and bool(container.get("tty"))
    if o.tty and not container.get("tty"):
        g.warn(f"Unable to use a TTY - container {of[-1]} did not allocate one")
    if o.stdin and tty:
        g.warn("If you don't see a command prompt, try pressing enter.")
    streams = {"tty": tty, "stdin": o.stdin, "stdout": True, "stderr": not tty}
    attachment = RemoteAttachment(Remote(asked(f"{state}/node-streams.sock", "attach", of=of, **streams)))
    try:
        return relay_attachment(attachment, tty=tty)
    finally:
        attachment.close()
