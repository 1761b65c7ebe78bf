"""`pyrun node describe`: a pod for a person."""

from __future__ import annotations

from pyrun.cli.commands.cri import STATE
from pyrun.cli.commands.node_get import age, word_of
from pyrun.cli.output import columns, write
from pyrun.cli.pods import pod_of
from pyrun.errors import printable
from pyrun.node.agent.ask import ask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options


def run(g: Globals, o: Options) -> int:
    state, namespace = o.state or STATE, o.namespace or "default"
    pod = pod_of(state, namespace, o.name)
    write("".join([printable(line) + "\n" for line in _lines(pod)]))
    events = ask(state, "events", namespace=namespace, name=o.name)
    write("Events:\n" if events else "Events:           none since the agent started\n")
    rows = [["  TYPE", "REASON", "AGE", "MESSAGE"]]
    for e in events:
        times = f"{age(e['lastTimestamp'])}" + (f" (x{e['count']})" if e["count"] > 1 else "")
        rows.append([f"  {e['type']}", e["reason"], times, "; ".join(map(str.strip, e["message"].splitlines()))])
    if events:
        write(columns(rows))
    return 0


def _lines(pod: dict[str, Any]) -> Iterator[str]:
    meta, spec, status = pod["metadata"], pod["spec"], pod["status"]
    rows = {
        "Name": meta["name"],
        "Namespace": meta.get("namespace") or "default",
        "UID": meta["uid"],
        "Node": spec.get("nodeName") or "",
        "Manifest": meta["annotations"].get("pyrun.dev/manifest", ""),
        "Labels": ", ".join(f"{key}={value}" for key, value in (meta.get("labels") or {}).items()) or "none",
        "Status": word_of(pod),
        "Phase": status.get("phase") or "",
        "Reason": status.get("reason") or "",
        "Message": status.get("message") or "",
        "IP": ", ".join(one["ip"] for one in status.get("podIPs") or ()),
        "QoS class": status.get("qosClass") or "",
    }
    yield from (f"{key + ':':<17} {value}" for key, value in rows.items() if value)
    for title, field in (("Init containers", "initContainerStatuses"), ("Containers", "containerStatuses")):
        if status.get(field):
            yield f"{title}:"
            for c in status[field]:
                yield from _container(c)
    yield "Conditions:"
    for c in status.get("conditions") or ():
        why = ": ".join(word for word in (c.get("reason"), c.get("message")) if word)
        yield f"  {c['type']:<28} {c['status']:<6} {why}".rstrip()


def _container(c: dict[str, Any]) -> Iterator[str]:
    yield f"  {c['name']}:"
    yield f"    Image:         {c['image']}"
    yield f"    Container ID:  {c.get('containerID') or ''}".rstrip()
    yield f"    Ready:         {str(bool(c.get('ready'))).lower()}, {c.get('restartCount') or 0} restarts"
    yield f"    State:         {_state(c.get('state') or {})}"
    if c.get("lastState"):
        yield f"    Last state:    {_state(c['lastState'])}"


def _state(state: dict[str, Any]) -> str:
    if running := state.get("running"):
        return f"running since {running['startedAt']}"
    if ended := state.get("terminated"):
        text = f"ended at {ended['finishedAt']} with {ended['exitCode']}, {ended.get('reason') or ''}"
        return f"{text}: {ended['message'].strip()}" if ended.get("message") else text
    waiting = state.get("waiting") or {}
    return "waits: " + ": ".join(word for word in (waiting.get("reason"), waiting.get("message")) if word)
