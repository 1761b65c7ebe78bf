"""`pyrun node drain`: no new pods here, and those that there are go in order."""

from __future__ import annotations

from pyrun.cli.commands.cri import STATE
from pyrun.cli.output import write
from pyrun.errors import DeadlineExceeded, InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options


def run(g: Globals, o: Options) -> int:
    from pyrun.node.agent.ask import ask

    if not 1 <= o.timeout <= 3600:
        raise InvalidArgument(f"--timeout {o.timeout}: must be 1 to 3600 seconds")
    state = o.state or STATE
    found = ask(state, "status")
    if found["server"]:
        from pyrun.kube.client import Client
        from pyrun.kube.kubeconfig import load_kubeconfig
        from pyrun.node.server.drain import drain

        client = Client(load_kubeconfig(found["server"]["kubeconfig"]))
        try:
            drain(client, found["node"], told, patience_s=o.timeout, force=o.force, delete_data=o.delete_emptydir_data)
        finally:
            client.close()
        return 0
    told(f"{found['node']} runs no pods of {found['manifests']} any more; {found['pods']} end")
    done = ask(state, "drain", method="POST", patience=o.timeout + 10, wait=str(o.timeout))
    if done["left"]:
        raise DeadlineExceeded(
            f"not gone in {o.timeout} s: {', '.join(done['left'])}", hint="they go on ending; pyrun node get -A"
        )
    told(f"{found['node']} is drained; pyrun node uncordon ends that")
    return 0


def told(line: str) -> None:
    write(line + "\n")
