"""`pyrun node logs`: what a container of a pod wrote, by the same code as `pyrun logs`."""

from __future__ import annotations

from pyrun.cli.commands import logs
from pyrun.cli.commands.cri import STATE
from pyrun.cli.parse import Options
from pyrun.errors import InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals


def run(g: Globals, o: Options) -> int:
    from pyrun.node.agent.ask import ask

    state, namespace = o.state or STATE, o.namespace or "default"
    found = ask(state, "pods", namespace=namespace, name=o.name)
    if not found:
        raise NotFound(f"there is no pod {namespace}/{o.name}", hint="pyrun node get -A has all")
    spec = found[0]["spec"]
    kinds = ("initContainers", "containers", "ephemeralContainers")
    names = [c["name"] for kind in kinds for c in spec.get(kind, ())]
    if o.container and o.container not in names:
        raise NotFound(f"pod {o.name} has no container {o.container}", hint=f"it has {', '.join(names)}")
    if not o.container and len(spec["containers"]) > 1:
        raise InvalidArgument(f"pod {o.name} has several containers", hint=f"-c {' or '.join(names)}")
    words = {
        "words": (),
        "regex": False,
        "word": False,
        "store": None,
        "namespace": namespace,
        "pod": o.name,
        "container": o.container or spec["containers"][0]["name"],
        "selector": None,
        "since": o.since,
        "since_time": None,
        "until_time": None,
        "stream": "both",
        "format": "text",
        "dir": ask(state, "status")["logs"],
        "follow": o.follow,
        "previous": o.previous,
        "timestamps": o.timestamps,
        "tail": o.tail,
        "after_context": None,
        "before_context": None,
        "context": None,
        "no_join": True,
        "begins": None,
    }
    return logs.run(g, Options(**words))
