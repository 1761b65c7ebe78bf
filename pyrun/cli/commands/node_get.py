"""`pyrun node get`: pods with their state, and what they refer to."""

from __future__ import annotations

import time
from datetime import datetime

from pyrun.cli.commands.cri import STATE
from pyrun.cli.output import columns, indented, write
from pyrun.errors import InvalidArgument, NotFound, printable
from pyrun.node.agent.ask import ask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options

KINDS = {
    "pods": ("pods", "pod", "po"),
    "deployments": ("deployments", "deployment", "deploy"),
    "configmaps": ("configmaps", "configmap", "cm"),
    "secrets": ("secrets", "secret"),
}


def run(g: Globals, o: Options) -> int:
    kind, name = kind_of(o.what or "pods"), o.name
    namespace = None if o.all_namespaces else o.namespace or "default"
    found = ask(o.state or STATE, kind, namespace=namespace, name=name)
    if name and not found:
        raise NotFound(f"there is no {KINDS[kind][1]} {namespace or '*'}/{name}")
    if o.output in ("json", "yaml"):
        whole = found[0] if name and len(found) == 1 else {"apiVersion": "v1", "kind": "List", "items": found}
        write(indented(whole) + "\n" if o.output == "json" else as_yaml(whole))
    elif o.output == "name":
        write("".join([printable(f"{KINDS[kind][1]}/{one['metadata']['name']}") + "\n" for one in found]))
    else:
        rows = table(kind, found, spaces=o.all_namespaces, wide=o.output == "wide")
        write(columns([[printable(word) for word in row] for row in rows]))
    return 0


def kind_of(word: str) -> str:
    """By one of a kind's names."""
    for kind, names in KINDS.items():
        if word.lower() in names:
            return kind
    raise InvalidArgument(f"{word!r} is no kind of this node", hint=f"kinds are {', '.join(KINDS)}")


def as_yaml(value: Any) -> str:
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, default_flow_style=False))


def table(kind: str, found: list[dict[str, Any]], *, spaces: bool, wide: bool) -> list[list[str]]:
    if kind == "pods":
        head = ["NAME", "READY", "STATUS", "RESTARTS", "AGE", *(["IP", "NODE"] if wide else [])]
    elif kind == "deployments":
        head = ["NAME", "READY", "UP-TO-DATE", "AVAILABLE"]
    else:
        head = ["NAME", "DATA"] if kind == "configmaps" else ["NAME", "TYPE", "DATA"]
    rows = [head]
    for one in found:
        if kind == "pods":
            rows.append(pod_row(one, wide=wide))
        elif kind == "deployments":
            status = one["status"]
            ready = f"{status.get('readyReplicas') or 0}/{one['spec'].get('replicas')}"
            counts = [str(status.get(field) or 0) for field in ("updatedReplicas", "availableReplicas")]
            rows.append([one["metadata"]["name"], ready, *counts])
        elif kind == "configmaps":
            count = len(one.get("data") or {}) + len(one.get("binaryData") or {})
            rows.append([one["metadata"]["name"], str(count)])
        else:
            count = len({**(one.get("data") or {}), **(one.get("stringData") or {})})
            rows.append([one["metadata"]["name"], one.get("type") or "Opaque", str(count)])
    if spaces:
        names = ["NAMESPACE", *(one["metadata"].get("namespace") or "default" for one in found)]
        rows = [[name, *row] for name, row in zip(names, rows, strict=True)]
    return rows


def pod_row(pod: dict[str, Any], *, wide: bool) -> list[str]:
    status, meta = pod["status"], pod["metadata"]
    containers = status.get("containerStatuses") or []
    ready = sum(bool(c.get("ready")) for c in containers)
    restarts = sum(c.get("restartCount") or 0 for c in containers)
    row = [meta["name"], f"{ready}/{len(containers)}", word_of(pod), str(restarts), age(meta["creationTimestamp"])]
    return [*row, status.get("podIP") or "-", pod["spec"].get("nodeName") or "-"] if wide else row


def word_of(pod: dict[str, Any]) -> str:
    """What kubectl has in its column STATUS."""
    status = pod["status"]
    if "deletionTimestamp" in pod["metadata"]:
        return "Terminating"
    inits = status.get("initContainerStatuses") or []
    if status.get("reason") and status.get("phase") == "Pending":  # what the node has no room for, or does not have
        return str(status["reason"])
    for i, c in enumerate(inits):
        state = c.get("state") or {}
        if "terminated" in state and state["terminated"].get("exitCode") == 0:
            continue
        if c.get("started") and c.get("ready"):
            continue
        if "terminated" in state:
            return f"Init:{state['terminated'].get('reason') or 'Error'}"
        reason = (state.get("waiting") or {}).get("reason")
        return f"Init:{reason}" if reason and reason != "PodInitializing" else f"Init:{i}/{len(inits)}"
    word = status.get("reason") or status.get("phase") or "Unknown"
    for c in reversed(status.get("containerStatuses") or []):
        state = c.get("state") or {}
        if reason := (state.get("waiting") or {}).get("reason"):
            word = reason
        elif "terminated" in state:
            word = state["terminated"].get("reason") or f"ExitCode:{state['terminated'].get('exitCode')}"
    return str(word)


def age(since: str) -> str:
    """Such as 5s, 3m20s, 4h, 12d."""
    seconds = max(0, int(time.time() - datetime.fromisoformat(since).timestamp()))
    if seconds < 120:
        return f"{seconds}s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 10 and seconds:
        return f"{minutes}m{seconds}s"
    if minutes < 180:
        return f"{minutes}m"
    hours = minutes // 60
    return f"{hours}h" if hours < 48 else f"{hours // 24}d"
