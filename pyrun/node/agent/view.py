"""Pods, their events and what they refer to, as the agent shows them: Kubernetes' own objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ...image.garbage import Garbage
from ..plan.status import rfc3339
from .actor import Actor
from .events import Event
from .record import Record
from .sandbox_config import API, FILE, SOURCE
from .source import Key, Wanted, is_url


def pod_value(actor: Actor) -> dict[str, Any]:
    """A Pod with its status. config.source and its file are annotations, as a kubelet's static pods have them."""
    record = actor.record
    value: dict[str, Any] = msgspec.to_builtins(record.pod)
    value.update(apiVersion="v1", kind="Pod")
    meta = value["metadata"]
    meta["uid"] = record.uid
    meta.setdefault("creationTimestamp", rfc3339(record.created))
    meta["annotations"] = {
        **meta.get("annotations", {}),
        SOURCE: source_word(record),
        "kubernetes.io/config.seen": rfc3339(record.created),
        **({} if record.api else {"pyrun.dev/manifest": record.file}),
    }
    if record.deleted is not None:
        meta["deletionTimestamp"] = rfc3339(record.deleted + record.grace)
        meta["deletionGracePeriodSeconds"] = record.grace
    value["spec"]["nodeName"] = actor.host.facts.name
    value["status"] = msgspec.to_builtins(actor.status())
    return value


def source_word(record: Record) -> str:
    """A kubelet's word for where a pod comes from."""
    return API if record.api else "http" if is_url(record.file) else FILE


def event_values(actor: Actor) -> list[dict[str, Any]]:
    namespace, name = actor.record.key
    return [
        {
            **event_value(event),
            "involvedObject": {"kind": "Pod", "namespace": namespace, "name": name, "uid": actor.record.uid},
        }
        for event in actor.events.all()
    ]


def garbage_value(plan: Garbage) -> dict[str, Any]:
    """used: RFC 3339. The images that go first, in the order in which they go."""
    images = [
        {
            "name": verdict.image.name,
            "id": verdict.image.id,
            "size": verdict.image.bytes,
            "used": rfc3339(verdict.image.used),
            "goes": verdict.goes,
            "frees": verdict.frees,
            "why": verdict.why,
        }
        for verdict in plan.verdicts
    ]
    return {"why": plan.why, "images": images, "wanted": plan.wanted, "short": plan.short}


def event_value(event: Event) -> dict[str, Any]:
    return {
        "type": event.type,
        "reason": event.reason,
        "message": event.message,
        "count": event.count,
        "firstTimestamp": rfc3339(event.first),
        "lastTimestamp": rfc3339(event.last),
    }


def object_values(
    found: Mapping[Key, Wanted], kind: str, namespace: str | None, name: str | None
) -> list[dict[str, Any]]:
    return [
        {"apiVersion": "v1", "kind": kind, **msgspec.to_builtins(one.object)}
        for key, one in sorted(found.items())
        if key[0] == kind and namespace in (None, key[1]) and name in (None, key[2])
    ]
