"""Manifests and indexes: which documents an image is made of, out of bytes from a registry or an archive.

PURE. What a document is, is said twice, by the answer's Content-Type and by its own mediaType, and both must agree and
fit what it holds: a document that is manifest and index at once would be verified as one and run as the other
(CVE-2021-41190). At most 8 MiB of JSON are ever read (CVE-2023-25153).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pyrun.errors import PyrunError, Unimplemented
from pyrun.image.reference import is_digest

JSON_MOST = 8 << 20
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
ACCEPT = (OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST)
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
SIZE_MOST = 1 << 40
ENTRIES_MOST = 4096


@dataclass(frozen=True)
class Descriptor:
    """What another document says of a blob. size: bytes. os, architecture, variant: of an index's entry."""

    media_type: str
    digest: str
    size: int
    os: str = ""
    architecture: str = ""
    variant: str = ""
    annotations: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Manifest:
    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True)
class Index:
    manifests: tuple[Descriptor, ...]


def parse_object(data: bytes, what: str) -> dict[str, Any]:
    """The JSON object of these bytes; `what` it is, for errors."""
    if len(data) > JSON_MOST:
        raise PyrunError(f"{what}: {len(data)} bytes", hint=f"the most that is read is {JSON_MOST} bytes")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise PyrunError(f"{what}: no JSON: {error}")
    if not isinstance(value, dict):
        raise PyrunError(f"{what}: no JSON object")
    return value


def parse_document(data: bytes, media_type: str) -> Manifest | Index:
    """The document of these bytes. media_type: of the answer or the descriptor; "" where there is none."""
    top = parse_object(data, "manifest")
    own = top.get("mediaType", "")
    if not isinstance(own, str):
        raise PyrunError("manifest /mediaType: it must be a string")
    said = media_type.partition(";")[0].strip().lower()
    known = said if said in INDEXES | MANIFESTS else ""
    if top.get("schemaVersion") == 1:
        raise Unimplemented("a manifest of schema version 1", hint="push the image again with a newer tool")
    if own and known and own != known:
        raise PyrunError(f"manifest: it says that it is {own}, and was sent as {known}")
    if "manifests" in top and ("layers" in top or "config" in top):
        raise PyrunError("manifest: it has manifests and layers at once (CVE-2021-41190)")
    kind = own or known or (OCI_INDEX if "manifests" in top else OCI_MANIFEST if "layers" in top else said)
    if kind in INDEXES:
        return Index(tuple(_descriptor(item, "manifest /manifests") for item in _list(top, "manifests")))
    if kind in MANIFESTS:
        return _manifest(top)
    raise Unimplemented(f"a manifest of media type {kind[:100]!r}", hint="OCI's and docker's v2 ones are supported")


def choose(index: Index, os: str, architecture: str, variant: str = "") -> Descriptor:
    """The manifest of a platform: the first that fits, one of the same variant before others."""
    fitting = [item for item in index.manifests if item.os == os and item.architecture == architecture]
    fitting = [item for item in fitting if item.media_type in MANIFESTS | INDEXES or not item.media_type]
    best = [item for item in fitting if item.variant == variant] or fitting
    if best:
        return best[0]
    anywhere = [item for item in index.manifests if not item.os and not item.architecture]
    if len(anywhere) == 1 and len(index.manifests) == 1:  # as buildah and umoci write an index of one
        return anywhere[0]
    there = sorted({f"{item.os}/{item.architecture}" for item in index.manifests if item.os not in ("", "unknown")})
    raise PyrunError(f"the image has no {os}/{architecture}", hint=f"it has {', '.join(there) or 'no platform at all'}")


def _manifest(top: dict[str, Any]) -> Manifest:
    config = _descriptor(top.get("config"), "manifest /config")
    layers = tuple(_descriptor(item, "manifest /layers") for item in _list(top, "layers"))
    if config.media_type not in (OCI_CONFIG, DOCKER_CONFIG):
        raise Unimplemented(f"an artifact with a config of type {config.media_type[:100]!r}", hint="it is no image")
    return Manifest(config, layers)


def _list(top: dict[str, Any], name: str) -> list[Any]:
    value = top.get(name)
    if not isinstance(value, list) or len(value) > ENTRIES_MOST:
        raise PyrunError(f"manifest /{name}: it must be a list of at most {ENTRIES_MOST}")
    return value


def _descriptor(value: Any, place: str) -> Descriptor:
    if not isinstance(value, dict):
        raise PyrunError(f"{place}: no descriptor")
    digest, size, kind = value.get("digest"), value.get("size"), value.get("mediaType", "")
    if not isinstance(digest, str) or not is_digest(digest):
        raise PyrunError(f"{place}: {str(digest)[:80]!r} is no sha256 digest")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= SIZE_MOST:
        raise PyrunError(f"{place}: {str(size)[:40]} is no size")
    platform = value.get("platform")
    platform = platform if isinstance(platform, dict) else {}
    notes = value.get("annotations")
    notes = notes if isinstance(notes, dict) else {}
    return Descriptor(
        kind if isinstance(kind, str) else "",
        digest,
        size,
        str(platform.get("os") or ""),
        str(platform.get("architecture") or ""),
        str(platform.get("variant") or ""),
        tuple((str(key), str(text)) for key, text in notes.items()),
    )
