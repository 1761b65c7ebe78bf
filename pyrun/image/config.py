"""The documents of an image: manifest, index and configuration, out of bounded JSON and nothing believed.

A document is what its media type says; one that is two things at once is refused (CVE-2021-41190).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from ..errors import InvalidArgument
from .references import DIGEST

MOST_BYTES = 8 << 20  # of any such document (CVE-2023-25153)
MOST_LAYERS = 127
OCI, DOCKER = "application/vnd.oci.image.", "application/vnd.docker.distribution."
MANIFESTS = (f"{OCI}manifest.v1+json", f"{DOCKER}manifest.v2+json")
INDEXES = (f"{OCI}index.v1+json", f"{DOCKER}manifest.list.v2+json")
LAYERS = {
    f"{OCI}layer.v1.tar",
    f"{OCI}layer.v1.tar+gzip",
    f"{OCI}layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
}


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A blob: media type, digest, size in bytes."""

    media_type: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What an image says of its programs (image-spec, config.md). diff_ids: of the layers, the lowest first."""

    user: str = ""
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    volumes: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    stop_signal: str = ""
    exposed_ports: tuple[str, ...] = ()
    architecture: str = ""
    os: str = ""
    diff_ids: tuple[str, ...] = ()


def load_document(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object. InvalidArgument."""
    if len(data) > MOST_BYTES:
        raise InvalidArgument(f"{what} has more than {MOST_BYTES >> 20} MiB")
    try:
        made = json.loads(data)
    except (ValueError, RecursionError) as e:
        raise InvalidArgument(f"{what} is no JSON: {e}") from None
    if not isinstance(made, dict):
        raise InvalidArgument(f"{what} is no JSON object")
    return made


def load_manifest(data: bytes, media_type: str) -> tuple[Descriptor, tuple[Descriptor, ...]]:
    """(configuration, layers, the lowest first) of an image's manifest."""
    doc = load_document(data, "the manifest")
    _check_kind(doc, media_type, "layers", "manifests")
    layers = doc.get("layers")
    if not isinstance(layers, list) or len(layers) > MOST_LAYERS:
        raise InvalidArgument(f"the manifest has no list of at most {MOST_LAYERS} layers")
    found = tuple(_descriptor(layer, f"layer {i}") for i, layer in enumerate(layers))
    for i, layer in enumerate(found):
        if layer.media_type not in LAYERS:
            raise InvalidArgument(f"layer {i} has media type {layer.media_type!r}, which is not supported")
    return _descriptor(doc.get("config"), "the configuration"), found


def load_index(data: bytes, media_type: str, architecture: str, variant: str = "") -> Descriptor:
    """The manifest for this machine."""
    doc = load_document(data, "the index")
    _check_kind(doc, media_type, "manifests", "layers")
    entries = doc.get("manifests")
    if not isinstance(entries, list):
        raise InvalidArgument("the index has no list of manifests")
    seen = []
    for entry in entries:
        platform = entry.get("platform") if isinstance(entry, dict) else None
        if not isinstance(platform, dict):
            continue
        seen.append(f"{platform.get('os')}/{platform.get('architecture')}")
        if platform.get("os") == "linux" and platform.get("architecture") == architecture:
            return _descriptor(entry, "the manifest")
    if len(entries) == 1 and not seen:
        return _descriptor(entries[0], "the manifest")
    raise InvalidArgument(
        f"the image is not made for linux/{architecture}", hint=f"it is for {', '.join(seen) or 'nothing'}"
    )


def _check_kind(doc: dict[str, Any], media_type: str, wanted: str, other: str) -> None:
    if doc.get("schemaVersion") != 2:
        raise InvalidArgument(f"schemaVersion {doc.get('schemaVersion')!r} is not supported", hint="2 is")
    own = doc.get("mediaType")
    if own is not None and own != media_type:
        raise InvalidArgument(f"the document calls itself {own!r} and came as {media_type!r} (CVE-2021-41190)")
    if other in doc or wanted not in doc:
        raise InvalidArgument(f"{media_type} with {other} or without {wanted} (CVE-2021-41190)")


def _descriptor(given: Any, what: str) -> Descriptor:
    if not isinstance(given, dict):
        raise InvalidArgument(f"{what} has no descriptor")
    media_type, digest, size = given.get("mediaType"), given.get("digest"), given.get("size")
    if not isinstance(media_type, str) or not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise InvalidArgument(f"{what} has no media type or no sha256 digest")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 50:
        raise InvalidArgument(f"{what} has {size!r} for a size")
    return Descriptor(media_type, digest, size)


def load_config(data: bytes) -> ImageConfig:
    """InvalidArgument."""
    doc = load_document(data, "the image's configuration")
    inner = doc.get("config") or {}
    rootfs = doc.get("rootfs") or {}
    diff_ids = _texts(rootfs.get("diff_ids") if isinstance(rootfs, dict) else None, "rootfs.diff_ids")
    if not isinstance(inner, dict) or not all(DIGEST.fullmatch(one) for one in diff_ids):
        raise InvalidArgument("the image's configuration has no config or no sha256 diff_ids")
    labels = inner.get("Labels") or {}
    if not isinstance(labels, dict) or not all(isinstance(v, str) for v in labels.values()):
        raise InvalidArgument("the image's configuration: Labels are not strings")
    return ImageConfig(
        user=_text(inner, "User"),
        env=_texts(inner.get("Env"), "Env"),
        entrypoint=_texts(inner.get("Entrypoint"), "Entrypoint"),
        cmd=_texts(inner.get("Cmd"), "Cmd"),
        working_dir=_text(inner, "WorkingDir"),
        volumes=_keys(inner.get("Volumes"), "Volumes"),
        labels=labels,
        stop_signal=_text(inner, "StopSignal"),
        exposed_ports=_keys(inner.get("ExposedPorts"), "ExposedPorts"),
        architecture=_text(doc, "architecture"),
        os=_text(doc, "os"),
        diff_ids=diff_ids,
    )


def _text(doc: dict[str, Any], key: str) -> str:
    value = doc.get(key) or ""
    if not isinstance(value, str):
        raise InvalidArgument(f"the image's configuration: {key} is no string")
    return value


def _texts(value: Any, key: str) -> tuple[str, ...]:
    if not isinstance(value or [], list) or not all(isinstance(one, str) for one in value or []):
        raise InvalidArgument(f"the image's configuration: {key} is no list of strings")
    return tuple(value or [])


def _keys(value: Any, key: str) -> tuple[str, ...]:
    if not isinstance(value or {}, dict):
        raise InvalidArgument(f"the image's configuration: {key} is no object")
    return tuple(value or {})
