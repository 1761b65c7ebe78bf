"""Types of Kubernetes: Deployments.

Generated from lightkube-models 1.37.0.8 by `make kube-objects`; do not edit.
"""

from __future__ import annotations

from .base import IntOrString, Object, Time
from .meta import LabelSelector, ListMeta, ObjectMeta
from .pods import PodTemplateSpec


class RollingUpdateDeployment(Object):
    maxSurge: IntOrString | None = None
    maxUnavailable: IntOrString | None = None


class DeploymentStrategy(Object):
    rollingUpdate: RollingUpdateDeployment | None = None
    type: str | None = None


class DeploymentSpec(Object):
    selector: LabelSelector
    template: PodTemplateSpec
    minReadySeconds: int | None = None
    paused: bool | None = None
    progressDeadlineSeconds: int | None = None
    replicas: int | None = None
    revisionHistoryLimit: int | None = None
    strategy: DeploymentStrategy | None = None


class DeploymentCondition(Object):
    lastTransitionTime: Time | None = None
    lastUpdateTime: Time | None = None
    message: str | None = None
    reason: str | None = None
    status: str | None = None
    type: str | None = None


class DeploymentStatus(Object):
    availableReplicas: int | None = None
    collisionCount: int | None = None
    conditions: list[DeploymentCondition] | None = None
    observedGeneration: int | None = None
    readyReplicas: int | None = None
    replicas: int | None = None
    terminatingReplicas: int | None = None
    unavailableReplicas: int | None = None
    updatedReplicas: int | None = None


class Deployment(Object):
    spec: DeploymentSpec
    apiVersion: str | None = None
    kind: str | None = None
    metadata: ObjectMeta | None = None
    status: DeploymentStatus | None = None


class DeploymentList(Object):
    items: list[Deployment]
    apiVersion: str | None = None
    kind: str | None = None
    metadata: ListMeta | None = None
