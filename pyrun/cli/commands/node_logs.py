"""`pyrun node logs`: what a container of a pod wrote, by the same code as `pyrun logs`."""

from __future__ import annotations

from pyrun.cli.commands import logs
from pyrun.cli.commands.cri import STATE
from pyrun.cli.parse import Options
from pyrun.cli.pods import container_of, pod_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals


def run(g: Globals, o: Options) -> int:
    from pyrun.node.agent.ask import ask

    state, namespace = o.state or STATE, o.namespace or "default"
    container = container_of(pod_of(state, namespace, o.name), o.container)
    words = {
        "words": (),
        "regex": False,
        "word": False,
        "store": None,
        "namespace": namespace,
        "pod": o.name,
        "container": container["name"],
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
