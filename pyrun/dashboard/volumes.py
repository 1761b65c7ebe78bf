"""PURE: the volumes of the agent's pods, and where they are seen."""

from __future__ import annotations

from typing import Any

from .clean import clean

WORD = 300
Value = dict[str, Any]


def plan_volumes(pods: list[Value]) -> list[Value]:
    """[{namespace, pod, name, kind, about, mounts: [{container, path, read_only}]}]"""
    found = []
    for pod in pods:
        spec, meta = pod.get("spec") or {}, pod["metadata"]
        every = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
        for volume in spec.get("volumes") or ():
            kind, about = next(((k, v) for k, v in volume.items() if k != "name"), ("", {}))
            mounts = [
                {"container": _word(c["name"]), "path": _word(m["mountPath"]), "read_only": bool(m.get("readOnly"))}
                for c in every
                for m in c.get("volumeMounts") or ()
                if m["name"] == volume["name"]
            ]
            found.append(
                {
                    "namespace": _word(meta.get("namespace") or "default"),
                    "pod": _word(meta["name"]),
                    "name": _word(volume["name"]),
                    "kind": _word(kind),
                    "about": _about(about),
                    "mounts": mounts,
                }
            )
    return found


def _about(about: Any) -> str:
    """What it is of: names and sizes, never contents."""
    if not isinstance(about, dict):
        return ""
    words = [f"{key} {value}" for key, value in about.items() if isinstance(value, str | int) and value != ""]
    return clean(", ".join(words), WORD)


def _word(text: Any) -> str:
    return clean(str(text), WORD)
