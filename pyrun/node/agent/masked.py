"""PURE: objects as they may be shown to who may not have their secrets."""

from __future__ import annotations

import re
from typing import Any

MASK = "••••••"
_NAMES = re.compile(r"pass|pwd|secret|token|key|credential|auth|cookie|private|dsn", re.IGNORECASE)
_USERINFO = re.compile(r"(?<=://)[^\s/?#]*@")  # RFC 3986, 3.2.1; greedy, as people forget to escape an @
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"  # has all of it once more


def masked(value: dict[str, Any]) -> dict[str, Any]:
    """A Secret without its values; a Pod without those of variables whose name tells of a secret, and
    without the user and password of URLs in variables and commands."""
    meta = value.get("metadata") or {}
    if LAST_APPLIED in (meta.get("annotations") or {}):
        meta = {**meta, "annotations": {**meta["annotations"], LAST_APPLIED: MASK}}
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
    found: dict[str, Any] = {
        name: [_without_userinfo(word) for word in one[name]] for name in ("command", "args") if one.get(name)
    }
    if one.get("env"):
        found["env"] = [{**each, "value": _value(each)} if each.get("value") else each for each in one["env"]]
    return {**one, **found}


def _value(variable: dict[str, Any]) -> str:
    return MASK if _NAMES.search(variable["name"]) else _without_userinfo(variable["value"])


def _without_userinfo(text: str) -> str:
    return _USERINFO.sub(f"{MASK}@", text)
