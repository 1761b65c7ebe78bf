"""What the node agent says of its pods, as pages show it; nothing where none runs. Pure, but for `ask_agent`.

The CRI has what runs; only the agent knows what is wanted, what it waits for, and what it has tried."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..errors import PyrunError, Unavailable
from ..node.agent.ask import ask
from .clean import clean

WORD = 300
PATIENCE_S = 5.0
# What a container waits for that is no fault.
NORMAL = ("ContainerCreating", "PodInitializing", "")
Value = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Agent:
    """As it answered; error: why it did not, though it runs."""

    status: Value
    pods: list[Value] = field(default_factory=list)
    events: list[Value] = field(default_factory=list)
    error: str = ""


def ask_agent(state: str) -> Agent | None:
    """state: the directory of its socket. None where none runs."""
    if not os.path.exists(f"{state}/node.sock"):
        return None
    try:
        status, pods, events = (ask(state, what, patience=PATIENCE_S) for what in ("status", "pods", "events"))
    except Unavailable:
        return None
    except PyrunError as error:
        return Agent({}, error="; ".join(error.lines()))
    return Agent(status, pods, events)


def plan_kube(pod: Value) -> Value:
    """What a page shows of a Pod of the agent's beyond what the CRI has."""
    meta, status = pod["metadata"], pod.get("status") or {}
    inits, others = status.get("initContainerStatuses") or (), status.get("containerStatuses") or ()
    return {
        "phase": _word(status.get("phase")),
        "reason": _word(status.get("reason")),
        "message": clean(status.get("message") or "", 2000),
        "qos": _word(status.get("qosClass")),
        "ends": bool(meta.get("deletionTimestamp")),
        "manifest": _word((meta.get("annotations") or {}).get("pyrun.dev/manifest")),
        "conditions": [
            {"type": _word(one["type"]), "status": _word(one.get("status")), "why": _why(one)}
            for one in status.get("conditions") or ()
        ],
        "containers": {
            _word(one["name"]): _container(one) | {"init": init}
            for init, found in ((True, inits), (False, others))
            for one in found
        },
    }


def _container(one: Value) -> Value:
    """waiting: what it waits for, "" when it does not."""
    waiting = (one.get("state") or {}).get("waiting") or {}
    return {
        "ready": bool(one.get("ready")),
        "running": "running" in (one.get("state") or {}),
        "restarts": int(one.get("restartCount") or 0),
        "image": _word(one.get("image")),
        "waiting": _word(waiting.get("reason")),
        "message": clean(waiting.get("message") or "", 2000),
    }


def plan_events(events: list[Value]) -> dict[str, Value]:
    """By key."""
    found = {}
    for one in events:
        of = one["involvedObject"]
        value = {
            "type": _word(one["type"]),
            "reason": _word(one["reason"]),
            "message": clean(one["message"].rstrip(), 2000),  # a probe's ends with its last line
            "count": int(one["count"]),
            "first": nanoseconds(one["firstTimestamp"]),
            "last": nanoseconds(one["lastTimestamp"]),
            "namespace": _word(of["namespace"]),
            "name": _word(of["name"]),
            "uid": _word(of["uid"]),
        }
        mark = zlib.crc32(f"{one['type']}\0{one['reason']}\0{one['message']}".encode("utf-8", "replace"))
        found[f"event/{value['uid']}/{mark:08x}"] = value
    return found


def nanoseconds(text: str) -> int:
    """Since 1970, of a time as Kubernetes writes it."""
    return int(datetime.fromisoformat(text).timestamp() * 1e6) * 1000


def _why(condition: Value) -> str:
    return clean(": ".join(word for word in (condition.get("reason"), condition.get("message")) if word), 2000)


def _word(text: Any) -> str:
    return clean(str(text or ""), WORD)
