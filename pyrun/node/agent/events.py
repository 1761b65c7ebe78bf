"""What happened to a pod or to the node, as Kubernetes' events have it: equal ones are counted, the newest are kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from .record import Record

MOST = 50


@dataclass(slots=True)
class Event:
    """type: Normal or Warning. first, last: seconds since 1970."""

    type: str
    reason: str
    message: str
    first: float
    last: float
    count: int = 1


@dataclass(frozen=True, slots=True)
class Subject:
    """What events are about. A Node's namespace is empty, and its uid its name, as a kubelet has it."""

    kind: str
    namespace: str
    name: str
    uid: str


def of_pod(record: Record) -> Subject:
    return Subject("Pod", *record.key, record.uid)


def of_node(name: str) -> Subject:
    return Subject("Node", "", name, name)


class Events:
    def __init__(self, told: Callable[[Event], None] = lambda event: None) -> None:
        """told: each that has come, or come again."""
        self._told = told
        self._found: dict[tuple[str, str, str], Event] = {}

    def add(self, type: str, reason: str, message: str) -> None:
        now = time.time()
        key = type, reason, message
        event = self._found.pop(key, None)
        if event is None:
            event = Event(type, reason, message, now, now)
        else:
            event.last, event.count = now, event.count + 1
        self._found[key] = event  # the newest last
        if len(self._found) > MOST:
            del self._found[next(iter(self._found))]
        self._told(event)

    def all(self) -> list[Event]:
        """By when it was seen last."""
        return list(self._found.values())
