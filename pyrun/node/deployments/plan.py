"""PURE: what a Deployment asks for now, given its pods: which to begin, which to end, when to look again, its status.

There are no ReplicaSets: a pod is of the template whose hash it carries. Pods that are being ended count for nothing,
as with Kubernetes, but that Recreate waits until they are gone. Source: kubernetes pkg/controller/deployment
(rolling.go, recreate.go, util/deployment_util.go).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from ...kube.objects.apps import Deployment, DeploymentCondition, DeploymentStatus
from ...kube.objects.pods import PodTemplateSpec

HASH = "pod-template-hash"


class Replica(NamedTuple):
    """A pod of the Deployment. created, ready_since: seconds since 1970; ready_since None while it is not ready.
    deleted: it is being ended. finished: it has succeeded or failed, and nothing of it runs."""

    name: str
    hash: str
    created: float
    ready_since: float | None = None
    deleted: bool = False
    finished: bool = False


class Decision(NamedTuple):
    """begin: so many pods of the template. end: names. wake: when to plan again although nothing happens."""

    begin: int
    end: tuple[str, ...]
    wake: float | None
    status: DeploymentStatus


def template_hash(template: PodTemplateSpec) -> str:
    """The same for the same words."""
    return hashlib.sha256(msgspec.json.encode(template, order="deterministic")).hexdigest()[:10]


def plan_deployment(wanted: Deployment, pods: Sequence[Replica], now: float) -> Decision:
    """wanted: with its defaults."""
    spec = wanted.spec
    replicas, hash = 1 if spec.replicas is None else spec.replicas, template_hash(spec.template)
    alive = [pod for pod in pods if not pod.deleted and not pod.finished]
    new = [pod for pod in alive if pod.hash == hash]
    old = [pod for pod in alive if pod.hash != hash]
    patience = spec.minReadySeconds or 0
    if spec.strategy is not None and spec.strategy.type == "Recreate":
        begin, end = _recreate(replicas, new, old, any(pod.hash != hash for pod in pods), patience, now)
    else:
        begin, end = _roll(wanted, replicas, new, old, patience, now)
    end += [pod.name for pod in pods if pod.finished and not pod.deleted]  # replaced, as by a ReplicaSet
    waits = [pod.ready_since + patience for pod in alive if pod.ready_since is not None and patience]
    status, deadline = _status(wanted, replicas, pods, new, old, now)
    wakes = [at for at in (*waits, deadline) if at is not None and at > now]
    return Decision(begin, tuple(end), min(wakes, default=None), status)


def _recreate(
    replicas: int, new: list[Replica], old: list[Replica], still: bool, patience: int, now: float
) -> tuple[int, list[str]]:
    """still: something of an old pod is left."""
    if still:
        return 0, [pod.name for pod in old]
    return max(replicas - len(new), 0), _surplus(new, replicas, patience, now)


def _roll(
    wanted: Deployment, replicas: int, new: list[Replica], old: list[Replica], patience: int, now: float
) -> tuple[int, list[str]]:
    surge, missing = bounds(wanted, replicas)
    total = len(new) + len(old)
    begin = max(min(replicas - len(new), replicas + surge - total), 0)
    end = _surplus(new, replicas, patience, now)
    fewest = replicas - missing
    new_missing = sum(not is_available(pod, patience, now) for pod in new)
    # Old pods that are of no use go first, and of the others as many as are not needed.
    spare = max(total - len(end) - fewest - new_missing, 0)
    useless = [pod for pod in old if not is_available(pod, patience, now)]
    gone = useless[:spare]
    available = sum(is_available(pod, patience, now) for pod in (*new, *old)) - len(
        [pod for pod in new if pod.name in end and is_available(pod, patience, now)]
    )
    useful = [pod for pod in old if is_available(pod, patience, now)]
    gone += useful[: max(min(available - fewest, spare - len(gone)), 0)]
    return begin, [*end, *(pod.name for pod in gone)]


def bounds(wanted: Deployment, replicas: int) -> tuple[int, int]:
    """How many more than replicas there may be, and how many fewer may be available."""
    rolling = wanted.spec.strategy.rollingUpdate if wanted.spec.strategy is not None else None
    surge = _share("25%" if rolling is None or rolling.maxSurge is None else rolling.maxSurge, replicas, up=True)
    given = "25%" if rolling is None or rolling.maxUnavailable is None else rolling.maxUnavailable
    missing = min(_share(given, replicas, up=False), replicas)
    return surge, missing if surge or missing else 1


def _share(given: int | str, whole: int, *, up: bool) -> int:
    """3, or 25% of the whole."""
    if isinstance(given, int):
        return given
    part = int(given.removesuffix("%")) * whole / 100
    return math.ceil(part) if up else math.floor(part)


def is_available(pod: Replica, patience: int, now: float) -> bool:
    """Ready, and for minReadySeconds."""
    return pod.ready_since is not None and pod.ready_since + patience <= now


def _surplus(new: list[Replica], replicas: int, patience: int, now: float) -> list[str]:
    """Those that are not available go first, and the youngest of the others."""
    order = sorted(new, key=lambda pod: (is_available(pod, patience, now), -pod.created))
    return [pod.name for pod in order[: max(len(new) - replicas, 0)]]


def _status(
    wanted: Deployment, replicas: int, pods: Sequence[Replica], new: list[Replica], old: list[Replica], now: float
) -> tuple[DeploymentStatus, float | None]:
    """Its status; and when it will have made no progress for too long."""
    spec = wanted.spec
    patience = spec.minReadySeconds or 0
    alive = [*new, *old]
    available = sum(is_available(pod, patience, now) for pod in alive)
    fewest = replicas - bounds(wanted, replicas)[1]
    complete = not old and len(new) == replicas and available == replicas
    last = max((time for pod in new for time in (pod.created, pod.ready_since) if time is not None), default=now)
    deadline = None if complete else last + (spec.progressDeadlineSeconds or 600)
    if complete:
        progress = ("True", "NewReplicaSetAvailable", "all pods are of this template, and available")
    elif deadline is not None and deadline <= now:
        progress = ("False", "ProgressDeadlineExceeded", f"no progress in {spec.progressDeadlineSeconds or 600} s")
    else:
        progress = ("True", "ReplicaSetUpdated", f"{len(new)} of {replicas} pods are of this template")
    enough = available >= fewest
    why = "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable"
    status = DeploymentStatus(
        replicas=len(alive),
        updatedReplicas=len(new),
        readyReplicas=sum(pod.ready_since is not None for pod in alive),
        availableReplicas=available,
        unavailableReplicas=max(replicas - available, 0),
        terminatingReplicas=sum(pod.deleted for pod in pods),
        conditions=[
            DeploymentCondition(
                type="Available", status=str(enough), reason=why, message=f"{available} pods are available"
            ),
            DeploymentCondition(type="Progressing", status=progress[0], reason=progress[1], message=progress[2]),
        ],
    )
    return status, deadline
