"""An image's config: what its author wants to be run, as frozen values out of JSON that nobody has checked.

PURE. It comes from strangers: sizes are bounded, types are checked, and what is wrong is named by its place. Labels
stay apart: nothing of ours ever takes one for its own (CVE-2026-53488).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pyrun.errors import PyrunError
from pyrun.image.documents import parse_object
from pyrun.image.reference import is_digest

LAYERS_MOST = 127
WORDS_MOST = 1 << 16  # of a list in a config
NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class ImageConfig:
    """What a container takes from its image where the request says nothing. env: `NAME=value`. volumes,
    exposed_ports: as the image has them (`/data`, `80/tcp`), in order of their names."""

    user: str = ""
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    volumes: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    stop_signal: str = ""
    exposed_ports: tuple[str, ...] = ()


@dataclass(frozen=True)
class ConfigFile:
    """The whole document. diff_ids: of its layers, lowest first. created: as it is written there."""

    config: ImageConfig
    diff_ids: tuple[str, ...]
    architecture: str
    os: str
    variant: str
    created: str


def load_config(data: bytes) -> ConfigFile:
    """The config of these bytes. Raises PyrunError, which names the place in it."""
    top = parse_object(data, "image config")
    config = _object(top, "config")
    rootfs = _object(top, "rootfs")
    diff_ids = _words(rootfs, "diff_ids")
    for diff_id in diff_ids:
        if not is_digest(diff_id):
            raise PyrunError(f"image config /rootfs/diff_ids: {diff_id[:80]!r} is no sha256 digest")
    if len(diff_ids) > LAYERS_MOST:
        raise PyrunError(f"the image has {len(diff_ids)} layers", hint=f"{LAYERS_MOST} is the most")
    return ConfigFile(
        ImageConfig(
            user=_word(config, "User"),
            env=_words(config, "Env"),
            entrypoint=_words(config, "Entrypoint"),
            cmd=_words(config, "Cmd"),
            working_dir=_word(config, "WorkingDir"),
            volumes=tuple(sorted(_object(config, "Volumes"))),
            labels=MappingProxyType(
                {name: _word(_object(config, "Labels"), name) for name in _object(config, "Labels")}
            ),
            stop_signal=_word(config, "StopSignal"),
            exposed_ports=tuple(sorted(_object(config, "ExposedPorts"))),
        ),
        diff_ids,
        _word(top, "architecture"),
        _word(top, "os"),
        _word(top, "variant"),
        _word(top, "created"),
    )


def _object(parent: dict[str, Any], name: str) -> dict[str, Any]:
    value = parent.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise PyrunError(f"image config {name}: it must be an object")
    return value


def _word(parent: dict[str, Any], name: str) -> str:
    value = parent.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or "\0" in value:
        raise PyrunError(f"image config {name}: it must be a string without NUL")
    return value


def _words(parent: dict[str, Any], name: str) -> tuple[str, ...]:
    value = parent.get(name)
    if value is None:
        return ()
    if isinstance(value, str):  # as old builders wrote Entrypoint and Cmd
        value = [value]
    if not isinstance(value, list) or len(value) > WORDS_MOST:
        raise PyrunError(f"image config {name}: it must be a list of strings")
    if not all(isinstance(word, str) and "\0" not in word for word in value):
        raise PyrunError(f"image config {name}: it must be a list of strings without NUL")
    return tuple(value)
