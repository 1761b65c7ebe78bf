"""Types of Kubernetes: ConfigMaps and Secrets.

Generated from lightkube-models 1.37.0.8 by `make kube-objects`; do not edit.
"""

from __future__ import annotations

from .base import Object
from .meta import ListMeta, ObjectMeta


class ConfigMap(Object):
    apiVersion: str | None = None
    binaryData: dict[str, str] | None = None
    data: dict[str, str] | None = None
    immutable: bool | None = None
    kind: str | None = None
    metadata: ObjectMeta | None = None


class ConfigMapList(Object):
    items: list[ConfigMap]
    apiVersion: str | None = None
    kind: str | None = None
    metadata: ListMeta | None = None


class Secret(Object):
    apiVersion: str | None = None
    data: dict[str, str] | None = None
    immutable: bool | None = None
    kind: str | None = None
    metadata: ObjectMeta | None = None
    stringData: dict[str, str] | None = None
    type: str | None = None


class SecretList(Object):
    items: list[Secret]
    apiVersion: str | None = None
    kind: str | None = None
    metadata: ListMeta | None = None
