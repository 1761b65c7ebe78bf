"""`pyrun node uncordon`: what a drain, or a cordon, has stopped goes on."""

from __future__ import annotations

from pyrun.cli.commands.cri import STATE
from pyrun.cli.output import write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options


def run(g: Globals, o: Options) -> int:
    from pyrun.node.agent.ask import ask

    state = o.state or STATE
    found = ask(state, "status")
    if found["server"]:
        from pyrun.kube.client import Client
        from pyrun.kube.kubeconfig import load_kubeconfig
        from pyrun.node.server.drain import cordon

        client = Client(load_kubeconfig(found["server"]["kubeconfig"]))
        try:
            cordon(client, found["node"], on=False)
        finally:
            client.close()
    if found["drained"]:
        ask(state, "uncordon", method="POST")
    write(f"{found['node']} takes pods\n")
    return 0
