"""What a runtime can do, by what its `features` command says (the runtime spec's features.md). One that has no such
command is taken to have nothing that it would have to name."""

from __future__ import annotations

import json

# Flags of a bind that every runtime of these years takes; others it must name.
USUAL = frozenset(
    ("nosuid", "noexec", "nodev", "suid", "exec", "dev", "noatime", "nodiratime", "relatime", "strictatime")
)


class Features:
    """version: for people. mount_options: of binds. idmap: mounts with mappings of owners. user_namespaces: all that a
    kubelet wants of a pod in one, whose volumes it has mapped."""

    __slots__ = ("idmap", "mount_options", "recursive_read_only", "user_namespaces", "version")

    def __init__(
        self,
        version: str = "",
        *,
        mount_options: frozenset[str] = USUAL,
        recursive_read_only: bool = False,
        idmap: bool = False,
        user_namespaces: bool = False,
    ) -> None:
        self.version = version
        self.mount_options = mount_options
        self.recursive_read_only = recursive_read_only
        self.idmap = idmap
        self.user_namespaces = user_namespaces


def read_features(text: str, version: str) -> Features:
    """Of the JSON that the command writes; what is not of the expected form says nothing."""
    try:
        said = json.loads(text)
    except ValueError:
        said = {}
    if not isinstance(said, dict):
        said = {}
    options = said.get("mountOptions")
    options = frozenset(o for o in options if isinstance(o, str)) if isinstance(options, list) else frozenset()
    idmap = _at(said, "linux", "mountExtensions", "idmap", "enabled") is True
    words: dict[str, bool] = {"recursive_read_only": "rro" in options, "idmap": idmap, "user_namespaces": idmap}
    return Features(version, mount_options=USUAL | options, **words)


def _at(value: object, *keys: str) -> object:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
