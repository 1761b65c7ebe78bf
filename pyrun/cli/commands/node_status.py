"""`pyrun node status`: what a running node says of itself.

The exit status is 1 where its manifests have faults or its API server can't be had."""

from __future__ import annotations

from pyrun.cli.commands.cri import STATE
from pyrun.cli.commands.node_get import age
from pyrun.cli.output import compact, write
from pyrun.errors import PyrunError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options


def run(g: Globals, o: Options) -> int:
    from pyrun.node.agent.ask import ask

    found = ask(o.state or STATE, "status")
    server = found.get("server") or {}
    wrong = [word for word in (found["error"], *found["faults"], server.get("error")) if word]
    if o.format == "json":
        write(compact(found) + "\n")
        return 1 if wrong else 0
    lines = [f"pyrun node {found['version']}, node {found['node']}", f"  {found['pods']} pods of {found['manifests']}"]
    if server:
        lines[1] += " and of an API server"
    if server:
        lines.append(f"  credentials: {server['kubeconfig']}{_good_until(server['kubeconfig'])}")
    if found["drained"]:
        lines.append("  drained: no pod of a file runs; pyrun node uncordon ends that")
    lines += [f"  {one['key']} = {one['value']}, by {one['from']}" for one in found.get("configuration", ())]
    lines += [f"  wrong: {word}" for word in wrong]
    lines += [f"  {type}: new pods are refused, see the events" for type in found["conditions"]]
    for e in found["events"]:
        times = f" (x{e['count']})" if e["count"] > 1 else ""
        lines.append(f"  {age(e['lastTimestamp'])} ago: {e['reason']} {e['message']}{times}")
    write("".join([printable(line) + "\n" for line in lines]))
    return 1 if wrong else 0


def _good_until(kubeconfig: str) -> str:
    """When its certificate ends, where it has one in a file that we may read."""
    import time

    from pyrun.kube.certificates import read_pair
    from pyrun.kube.kubeconfig import load_kubeconfig

    try:
        cluster = load_kubeconfig(kubeconfig)
        pair = read_pair(cluster.certificate_file) if cluster.certificate_file else None
    except (PyrunError, ModuleNotFoundError):
        return ""
    if pair is None:
        return f" for {cluster.server}"
    ends = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(pair.ends))
    return f" for {cluster.server}, good until {ends}"
