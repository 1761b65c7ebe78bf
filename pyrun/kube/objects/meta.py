"""Types of Kubernetes: what every object has.

Generated from lightkube-models 1.37.0.8 by `make kube-objects`; do not edit.
"""

from __future__ import annotations

from typing import Any

from .base import Object, Time


class OwnerReference(Object):
    apiVersion: str
    kind: str
    name: str
    uid: str
    blockOwnerDeletion: bool | None = None
    controller: bool | None = None


class ObjectMeta(Object):
    annotations: dict[str, str] | None = None
    creationTimestamp: Time | None = None
    deletionGracePeriodSeconds: int | None = None
    deletionTimestamp: Time | None = None
    finalizers: list[str] | None = None
    generateName: str | None = None
    generation: int | None = None
    labels: dict[str, str] | None = None
    name: str | None = None
    namespace: str | None = None
    ownerReferences: list[OwnerReference] | None = None
    resourceVersion: str | None = None
    selfLink: str | None = None
    uid: str | None = None


class ShardInfo(Object):
    selector: str


class ListMeta(Object):
    continue_: str | None = None
    remainingItemCount: int | None = None
    resourceVersion: str | None = None
    selfLink: str | None = None
    shardInfo: ShardInfo | None = None


class LabelSelectorRequirement(Object):
    key: str
    operator: str
    values: list[str] | None = None


class LabelSelector(Object):
    matchExpressions: list[LabelSelectorRequirement] | None = None
    matchLabels: dict[str, str] | None = None


class Condition(Object):
    lastTransitionTime: Time
    message: str
    reason: str
    status: str
    type: str
    observedGeneration: int | None = None


class StatusCause(Object):
    field: str | None = None
    message: str | None = None
    reason: str | None = None


class StatusDetails(Object):
    causes: list[StatusCause] | None = None
    group: str | None = None
    kind: str | None = None
    name: str | None = None
    retryAfterSeconds: int | None = None
    uid: str | None = None


class Status(Object):
    apiVersion: str | None = None
    code: int | None = None
    details: StatusDetails | None = None
    kind: str | None = None
    message: str | None = None
    metadata: ListMeta | None = None
    reason: str | None = None
    status: str | None = None


class WatchEvent(Object):
    object: Any
    type: str
