"""PURE: objects as they may be shown to who may not have their secrets."""

from __future__ import annotations

import re
from typing import Any

MASK = "••••••"
_NAMES = re.compile(r"pass|pwd|secret|token|key|credential|auth|cookie|private|dsn", re.IGNORECASE)
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"  # has all of it once more


def masked(value: dict[str, Any]) -> dict[str, Any]:
    """A Secret without its values; a Pod without those of variables whose name tells of a secret."""
    meta = value.get("metadata") or {}
    if _LAST_APPLIED in (meta.get("annotations") or {}):
        meta = {**meta, "annotations": {**meta["annotations"], _LAST_APPLIED: MASK}}
        value = {**value, "metadata": meta}
    if value.get("kind") == "Secret":
        hidden: dict[str, Any] = {
            name: dict.fromkeys(value[name], MASK) for name in ("data", "stringData") if value.get(name)
        }
        return {**value, **hidden}
    spec = value.get("spec")
    if value.get("kind") != "Pod" or not isinstance(spec, dict):
        return value
    fields = {
        name: [_container(one) for one in spec[name]]
        for name in ("initContainers", "containers", "ephemeralContainers")
        if spec.get(name)
    }
    return {**value, "spec": {**spec, **fields}}


def _container(one: dict[str, Any]) -> dict[str, Any]:
    if not one.get("env"):
        return one
    env = [
        {**each, "value": MASK} if each.get("value") and _NAMES.search(each["name"]) else each for each in one["env"]
    ]
    return {**one, "env": env}
