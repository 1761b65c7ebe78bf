"""What the runtime holds of a pod, as the planner wants to see it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...kube.objects.status import LinuxContainerUser
from ...pod.pod import Container, Pod
from ...pod.records import EXITED, RUNNING
from ..plan.observed import Attempt, Sandbox
from .record import Record


def sandbox_of(pods: list[Pod]) -> Sandbox | None:
    """The newest."""
    if not pods:
        return None
    pod = pods[-1]
    made = pod.record.created / 1e9
    return Sandbox(pod.id, pod.config.metadata.attempt, made, pod.ready, tuple(pod.ips))


def attempts_of(pods: list[Pod], record: Record) -> tuple[Attempt, ...]:
    """Of all its sandboxes, oldest first, and those that were removed to make room."""
    found = [c for pod in pods for c in pod.containers.values() if c.visible]
    there = [_attempt(c, record) for c in found]
    past = [a for id, a in record.past.items() if all(id != c.id for c in found)]
    return tuple(sorted([*past, *there], key=lambda a: a.made))


def _attempt(c: Container, record: Record) -> Attempt:
    r = c.record
    hooks = record.hooks.get(c.id, {})
    ended = r.state == EXITED
    return Attempt(
        c.id,
        c.config.metadata.name,
        c.config.metadata.attempt,
        r.created / 1e9,
        c.config.image.user_specified_image or c.config.image.image,
        started=r.started / 1e9 if r.started and (ended or r.state == RUNNING) else None,
        finished=(r.finished or r.created) / 1e9 if ended else None,
        code=r.exit_code,
        reason=r.reason if ended else "",
        message=record.messages.get(c.id) or r.message,
        image=r.image_digest or r.image_id,
        post_start=hooks.get("postStart"),
        pre_stop=hooks.get("preStop"),
        stop=record.stops.get(c.id),
        resources=record.resources.get(c.id),
        user=_user(r.user),
    )


def _user(found: Mapping[str, Any]) -> LinuxContainerUser | None:
    if "uid" not in found:  # it was not made to the end
        return None
    return LinuxContainerUser(uid=found["uid"], gid=found["gid"], supplementalGroups=found["groups"])
