"""A CNI configuration: the first file of its directory, read, checked and made into what each plug-in is given.

Only the first counts, by name, as with containerd: one that is broken is not passed over in silence for the next.
"""

from __future__ import annotations

import json
import os

from ....errors import Unavailable, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ENDINGS = (".conflist", ".conf", ".json")
MAX_BYTES = 1 << 20
VERSIONS = ((0, 1, 0), (0, 2, 0), (0, 3, 0), (0, 3, 1), (0, 4, 0), (1, 0, 0), (1, 1, 0))
HAS_CHECK, HAS_GC = (0, 4, 0), (1, 1, 0)  # CHECK and prevResult at DEL; GC and STATUS


class Conflist:
    """name; version, a tuple; plugins: their configurations as objects; data: what to_json() gives and of() takes."""

    __slots__ = ("disable_check", "disable_gc", "name", "path", "plugins", "version")

    def __init__(self, data: dict[str, Any], path: str = "") -> None:
        self.path = path
        self.name = _text(data, "name", path)
        self.version = _version(data, path)
        self.disable_check = data.get("disableCheck") in (True, "true")
        self.disable_gc = data.get("disableGC") in (True, "true")
        plugins = data.get("plugins")
        if not isinstance(plugins, list) or not plugins or not all(isinstance(p, dict) for p in plugins):
            raise Unavailable(f"{path}: plugins is no list of objects")
        for plugin in plugins:
            kind = _text(plugin, "type", path)
            if "/" in kind or kind in (".", ".."):
                raise Unavailable(f"{path}: the type of a plug-in is a name, not {kind!r}")
        self.plugins: list[dict[str, Any]] = plugins

    def version_text(self) -> str:
        return ".".join(map(str, self.version))

    def data(self) -> dict[str, Any]:
        """What makes an equal one again."""
        flags = {"disableCheck": self.disable_check, "disableGC": self.disable_gc}
        return {"cniVersion": self.version_text(), "name": self.name, "plugins": self.plugins, **flags}

    def given_to(self, plugin: dict[str, Any], runtime: dict[str, Any], previous: object) -> dict[str, Any]:
        """What a plug-in reads: its configuration with what the list and the runtime add (CNI spec, section 3)."""
        found = {key: value for key, value in plugin.items() if key != "capabilities"}
        found |= {"cniVersion": self.version_text(), "name": self.name}
        wanted = plugin.get("capabilities") or {}
        passed = {key: value for key, value in runtime.items() if wanted.get(key)}
        if passed:
            found["runtimeConfig"] = passed
        if previous is not None:
            found["prevResult"] = previous
        return found

    def capabilities(self) -> set[str]:
        return {key for plugin in self.plugins for key, on in (plugin.get("capabilities") or {}).items() if on}


def files_of(directory: str) -> list[str]:
    """The configurations of a directory, in order."""
    try:
        return sorted(name for name in os.listdir(directory) if name.endswith(ENDINGS) and not name.startswith("."))
    except OSError:
        return []


def load(directory: str) -> Conflist:
    """The configuration of a directory. Unavailable with what is wrong."""
    names = files_of(directory)
    if not names:
        raise Unavailable(f"there is no CNI configuration in {directory}")
    path = f"{directory}/{names[0]}"
    data = _read(path)
    if not path.endswith(".conflist") and "plugins" not in data:
        data = {"cniVersion": data.get("cniVersion", "0.2.0"), "name": data.get("name"), "plugins": [data]}
    elif not data.get("loadOnlyInlinedPlugins") and isinstance(data.get("name"), str):
        data = {**data, "plugins": [*(data.get("plugins") or []), *_beside(directory, data["name"])]}
    return Conflist(data, path)


def _beside(directory: str, name: str) -> list[dict[str, Any]]:
    """Plug-ins in files of their own, in a directory named as the network is (CNI 1.1)."""
    if "/" in name or name in (".", ".."):
        return []
    folder = f"{directory}/{name}"
    return [_read(f"{folder}/{file}") for file in files_of(folder) if file.endswith(".conf")]


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
        data = json.loads(raw) if len(raw) <= MAX_BYTES else None
    except OSError as e:
        raise Unavailable(f"{path}: {reason(e)}") from None
    except (ValueError, RecursionError) as e:
        raise Unavailable(f"{path}: {e}", hint="it is not JSON") from None
    if not isinstance(data, dict):
        raise Unavailable(f"{path}: no JSON object of at most {MAX_BYTES >> 20} MiB")
    return data


def _text(data: dict[str, Any], key: str, path: str) -> str:
    value = data.get(key)
    if not isinstance(value, str) or not value:
        raise Unavailable(f"{path}: {key} is missing or no text")
    return value


def _version(data: dict[str, Any], path: str) -> tuple[int, ...]:
    """The newest of cniVersion and cniVersions that we speak."""
    many = data.get("cniVersions")
    given = [*(many if isinstance(many, list) else []), data.get("cniVersion") or "0.2.0"]
    parsed = [tuple(int(n) for n in str(text).split(".")) for text in given if _is_version(text)]
    known = [version for version in parsed if version in VERSIONS]
    if not known:
        raise Unavailable(f"{path}: cniVersion {given[-1]!r} is none that pyrun speaks (0.1.0 to 1.1.0)")
    return max(known)


def _is_version(text: object) -> bool:
    parts = str(text).split(".")
    return len(parts) == 3 and all(part.isdigit() and len(part) < 4 for part in parts)


__all__ = ["HAS_CHECK", "HAS_GC", "Conflist", "files_of", "load"]
