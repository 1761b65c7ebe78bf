"""`pyrun node logs`: what a container of a pod wrote, by the same code as `pyrun logs`."""

from __future__ import annotations

from pyrun.cli.commands import logs
from pyrun.cli.commands.cri import STATE
from pyrun.cli.parse import Options
from pyrun.cli.pods import container_of, pod_of
from pyrun.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.cli.main import Globals


def run(g: Globals, o: Options) -> int:
    from pyrun.node.agent.ask import ask

    state, namespace = o.state or STATE, o.namespace or "default"
    pod = pod_of(state, namespace, o.name)
    container = container_of(pod, o.container)
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
    try:
        return logs.run(g, Options(**words))
    except NotFound:
        raise NotFound(_why_none(pod, container["name"], previous=o.previous)) from None


def _why_none(pod: dict[str, Any], name: str, *, previous: bool) -> str:
    """Of a container without a log."""
    meta, status = pod["metadata"], pod["status"]
    whole = f"container {name} of pod {meta.get('namespace') or 'default'}/{meta['name']}"
    kinds = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
    found: dict[str, Any] = next((c for kind in kinds for c in status.get(kind) or () if c["name"] == name), {})
    if previous:
        return f"{whole} has no attempt before this one that is kept"
    waiting = (found.get("state") or {}).get("waiting") or {}
    why = ": ".join(word for word in (waiting.get("reason"), waiting.get("message")) if word)
    return f"{whole} has no log yet: it waits: {why}" if why else f"{whole} has no log"
